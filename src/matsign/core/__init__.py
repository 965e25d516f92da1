"""How a function is called: arguments, operations, derivatives, certificates, errors."""
