package static

import "context"

// Reload reads the file now.
func (r *Registry) Reload(ctx context.Context) { r.take(ctx) }

// Parse is parse, for its errors.
func Parse(text []byte) error {
	_, err := parse(text)
	return err
}
