package messaging

import (
	"maps"
	"net/textproto"
	"strings"
	"unicode/utf8"
)

// ours tells the fields, in canonical spelling, with which sidecars tell each
// other what becomes of a message. A publisher that set them could have it
// passed over in silence by all queues but one, or a dead letter retried
// somewhere else.
func ours(canonical string) bool {
	switch canonical {
	case onlyQueueField, delayedToField, delayedUntilField:
		return true
	}
	return strings.HasPrefix(canonical, deadPrefix)
}

// withoutOurs is a publisher's header without the fields that are not for
// publishers to set. It is header itself when there are none.
func withoutOurs(header map[string]string) map[string]string {
	var kept map[string]string
	for name := range header {
		if !ours(textproto.CanonicalMIMEHeaderKey(name)) {
			continue
		}
		if kept == nil {
			kept = maps.Clone(header)
		}
		delete(kept, name)
	}
	if kept == nil {
		return header
	}
	return kept
}

// saidByUs tells the fields in which the application hears from the sidecar,
// in any spelling: two fields that differ in case are one to the application,
// and many see an underscore as a hyphen (RFC 3875 section 4.1.18).
func saidByUs(name string) bool {
	switch textproto.CanonicalMIMEHeaderKey(strings.ReplaceAll(name, "_", "-")) {
	case topicField, attemptField, headerField:
		return true
	case idField: // the publisher's own, as documented
		return name != idField
	}
	return false
}

// maxSentence bounds a sentence that holds somebody else's text, in bytes.
const maxSentence = 1 << 10

// clip shortens such a sentence.
func clip(text string) string {
	if len(text) <= maxSentence {
		return text
	}
	end := maxSentence
	for end > 0 && !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end] + "…"
}
