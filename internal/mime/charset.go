package mime

// ToUTF8 converts text that came in a charset. It reports false for an unknown charset.
func ToUTF8(charset, text string) (string, bool) { return toUTF8(charset, text) }
