package signature

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// fetcher makes the requests of one update and ends with its context.
type fetcher struct {
	ctx  context.Context
	http *http.Client
}

// DownloadFile implements the fetcher of go-tuf.
func (f *fetcher) DownloadFile(url string, maxLength int64, _ time.Duration) ([]byte, error) {
	return f.get(url, maxLength)
}

// get returns the body of at most limit bytes.
func (f *fetcher) get(url string, limit int64) ([]byte, error) {
	body, err := f.open(url)
	if err != nil {
		return nil, err
	}
	defer func() { _ = body.Close() }() // only read
	data, err := io.ReadAll(io.LimitReader(body, limit+1))
	if err != nil {
		return nil, fmt.Errorf("fetching %s: %w", url, err)
	}
	if int64(len(data)) > limit {
		return nil, &metadata.ErrDownloadLengthMismatch{Msg: fmt.Sprintf("%s has more than %d bytes", url, limit)}
	}
	return data, nil
}

func (f *fetcher) open(url string) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(f.ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, fmt.Errorf("fetching %s: %w", url, err)
	}
	res, err := f.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("fetching %s: %w", url, err)
	}
	if res.StatusCode != http.StatusOK {
		return nil, errors.Join(&metadata.ErrDownloadHTTP{StatusCode: res.StatusCode, URL: url}, res.Body.Close())
	}
	return res.Body, nil
}

// target fetches the manifest and verifies it.
func (f *fetcher) target(base string, info *metadata.TargetFiles) ([]byte, error) {
	sum, ok := info.Hashes["sha256"]
	if !ok || info.Length > maxManifest {
		return nil, fmt.Errorf("%w: the manifest has no SHA-256 or is too long", ErrInvalid)
	}
	data, err := f.get(base+"/targets/"+sum.String()+"."+targetName, info.Length)
	if err != nil {
		return nil, err
	}
	return data, info.VerifyLengthHashes(data)
}

// blob streams a source's blob to disk and verifies it.
func (f *fetcher) blob(base string, s Source, to blobs) error {
	url := base + "/blobs/" + s.Blob.String()
	body, err := f.open(url)
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }() // only read
	tmp, err := os.CreateTemp(to.dir, "new-*")
	if err != nil {
		return fmt.Errorf("fetching %s: %w", url, err)
	}
	defer func() { _ = os.Remove(tmp.Name()) }() // after adoption there is nothing left
	c := counter{w: tmp, sum: sha256.New()}
	_, err = io.Copy(&c, io.LimitReader(body, s.BlobSize+1))
	if err := errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return fmt.Errorf("fetching %s: %w", url, err)
	}
	if c.n != s.BlobSize || c.digest() != s.Blob {
		return fmt.Errorf("fetching source %s: %w", s.Name, ErrDamaged)
	}
	return to.adopt(tmp.Name(), s.Blob, noStep)
}
