package nats

// DecodeEnvelope is decodeEnvelope for tests.
var DecodeEnvelope = decodeEnvelope
