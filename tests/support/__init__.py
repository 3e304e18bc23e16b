"""Foundation of the tests: loopback servers, a real Redis, a clock that tests move."""
