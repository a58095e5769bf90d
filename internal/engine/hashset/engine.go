package hashset

import (
	"context"
	"errors"
	"fmt"

	"github.com/lazaret/lazaret/internal/engine"
	"github.com/lazaret/lazaret/internal/threat"
)

// Engine asks up to three sets, one per algorithm, whether an object's digests
// are known. It is safe for concurrent use as long as it is not closed.
type Engine struct{ sha256, sha1, md5 *Set }

var _ engine.Engine = (*Engine)(nil)

// NewEngine returns an engine over the given sets, which belong to it from then
// on. Two sets of one algorithm are an error.
func NewEngine(sets ...*Set) (*Engine, error) {
	e := &Engine{}
	for _, s := range sets {
		place := map[Algorithm]**Set{SHA256: &e.sha256, SHA1: &e.sha1, MD5: &e.md5}[s.Algorithm()]
		if *place != nil {
			return nil, fmt.Errorf("making the hash engine: two sets of %s", s.Algorithm())
		}
		*place = s
	}
	return e, nil
}

// Name returns "hash".
func (e *Engine) Name() string { return "hash" }

// NeedSHA1 reports whether the SHA-1 of an object of the given size in bytes
// must be computed; a negative size asks for objects of any size.
func (e *Engine) NeedSHA1(size int64) bool { return need(e.sha1, size) }

// NeedMD5 is NeedSHA1 for MD5.
func (e *Engine) NeedMD5(size int64) bool { return need(e.md5, size) }

func need(s *Set, size int64) bool {
	return s != nil && (size < 0 && s.Len() > 0 || size >= 0 && s.MayHaveSize(size))
}

// Inspect looks up the content's digests. It is an error if a digest that a
// set needs was not computed.
func (e *Engine) Inspect(_ context.Context, c *engine.Content) ([]threat.Detection, error) {
	var found []threat.Detection
	look := func(s *Set, key []byte) error {
		if !need(s, c.Size) {
			return nil
		}
		if key == nil {
			return fmt.Errorf("inspecting by hash: no %s was computed", s.Algorithm())
		}
		name, severity, ok, err := s.Lookup(key, c.Size)
		if ok {
			found = append(found, threat.Detection{Signature: name, Engine: e.Name(), Severity: severity})
		}
		return err
	}
	err := look(e.sha256, c.SHA256[:])
	// A nil array pointer must not become a slice of zeros.
	var sha1, md5 []byte
	if c.SHA1 != nil {
		sha1 = c.SHA1[:]
	}
	if c.MD5 != nil {
		md5 = c.MD5[:]
	}
	err = errors.Join(err, look(e.sha1, sha1), look(e.md5, md5))
	return found, err
}

// Close closes the sets.
func (e *Engine) Close() error {
	var errs []error
	for _, s := range []*Set{e.sha256, e.sha1, e.md5} {
		if s != nil {
			errs = append(errs, s.Close())
		}
	}
	return errors.Join(errs...)
}
