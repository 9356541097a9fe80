"""How a token is elected from what members tell: masses of classes, certificates, and rules that methods share."""
