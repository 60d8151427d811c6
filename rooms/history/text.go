package history

import "encoding/json"

// appendText appends a JSON string.
func appendText[T ~string](dst []byte, text T) []byte {
	q, err := json.Marshal(string(text))
	if err != nil { // a string always marshals
		return append(dst, `""`...)
	}
	return append(dst, q...)
}
