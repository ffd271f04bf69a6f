package dns

// Wrap is wrap, for tests.
var Wrap = wrap
