"""What the tests stand on: loopback servers, a real Redis, a clock that tests move."""
