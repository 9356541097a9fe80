"""What an ensemble does when a member is lost, slow or wrong: its policy, and how it is carried out.

``policy.py`` says what is wanted; ``checks.py`` which answers count; ``breaker.py`` whom not to ask for a while;
``guard.py`` deadlines, second replicas and reopened sessions; ``crew.py`` who takes part in a request;
``segments.py`` an answer that goes on with other members than it began with. Methods know none of this.
"""
