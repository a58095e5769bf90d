package signature

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"
	"github.com/theupdateframework/go-tuf/v2/metadata/config"
	"github.com/theupdateframework/go-tuf/v2/metadata/updater"

	"github.com/lazaret/lazaret/internal/threat"
)

// Why an update was refused; the bundle that was there before stays.
var (
	// ErrUnpublished: the repository has no bundle yet.
	ErrUnpublished = errors.New("no signature bundle has been published yet")
	// ErrUntrusted: a signature or digest is wrong.
	ErrUntrusted = errors.New("the signature bundle is not what the manager signed")
	// ErrOld: older than what this node has already seen.
	ErrOld = errors.New("the signature bundle is older than one already seen")
	// ErrExpired: nobody has renewed the signatures, or somebody withholds news.
	ErrExpired = errors.New("the signatures of the bundle have expired, or this host's clock is wrong")
)

// ClientConfig says where bundles come from.
type ClientConfig struct {
	// Dir holds the trusted metadata, the verified manifest and blobs; it is
	// made with mode 0700.
	Dir string
	// URL under which the repository's handler or a mirror answers.
	URL string
	// HTTP makes the requests, over whatever transport; default
	// http.DefaultClient. Credentials are its business.
	HTTP *http.Client
	// Root is the first trusted root metadata, from enrolment. If it is empty
	// and none is stored, the one that the first update finds is pinned.
	Root []byte
	// Now is the clock; default time.Now.
	Now func() time.Time
	// Logger; default: discard.
	Logger *slog.Logger
}

// Client fetches and verifies bundles for a node. It is safe for concurrent use.
type Client struct {
	c     ClientConfig
	blobs blobs
	mu    sync.Mutex
}

// NewClient makes the directories and nothing else; only Update uses the
// network.
func NewClient(c ClientConfig) (*Client, error) {
	if c.HTTP == nil {
		c.HTTP = http.DefaultClient
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	c.URL = strings.TrimSuffix(c.URL, "/")
	cl := &Client{c: c, blobs: blobs{filepath.Join(c.Dir, "blobs")}}
	for _, dir := range []string{cl.metadataDir(), cl.blobs.dir} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("opening signature client: %w", err)
		}
	}
	return cl, nil
}

func (c *Client) metadataDir() string  { return filepath.Join(c.c.Dir, "metadata") }
func (c *Client) manifestPath() string { return filepath.Join(c.c.Dir, targetName) }

// Bundle is a verified source bundle on this node.
type Bundle struct {
	Manifest *Manifest
	// Digest of the manifest: names the bundle's whole content.
	Digest threat.Hash
	blobs  blobs
}

// Bundle returns what the last successful update brought; the error wraps
// ErrUnpublished if there was none.
func (c *Client) Bundle() (*Bundle, error) {
	data, err := os.ReadFile(c.manifestPath())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrUnpublished
	}
	if err != nil {
		return nil, fmt.Errorf("reading the bundle: %w", err)
	}
	m, err := ParseManifest(data)
	if err != nil {
		return nil, fmt.Errorf("reading the bundle %s: %w", c.manifestPath(), err)
	}
	return &Bundle{Manifest: m, Digest: digestOf(data), blobs: c.blobs}, nil
}

// Update fetches the newest bundle. It returns the epoch this node now has and
// whether that changed. On any error the previous bundle stays as it was and
// its epoch is returned.
func (c *Client) Update(ctx context.Context) (epoch threat.Epoch, changed bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	old, err := c.Bundle()
	switch {
	case errors.Is(err, ErrInvalid):
		c.c.Logger.Warn("replacing the damaged bundle", slog.Any("error", err))
		old = nil
	case err != nil && !errors.Is(err, ErrUnpublished):
		return 0, false, err
	}
	if old != nil {
		epoch = old.Manifest.Epoch
	}
	b, err := c.fetch(ctx, old)
	if err != nil {
		return epoch, false, fmt.Errorf("updating signatures: %w", err)
	}
	changed = old == nil || old.Digest != b.Digest
	return b.Manifest.Epoch, changed, nil
}

func (c *Client) fetch(ctx context.Context, old *Bundle) (*Bundle, error) {
	f := &fetcher{ctx: ctx, http: c.c.HTTP}
	info, err := c.refresh(f)
	if err != nil {
		return nil, explain(err)
	}
	content, err := f.target(c.c.URL, info)
	if err != nil {
		return nil, explain(err)
	}
	m, err := ParseManifest(content)
	if err != nil {
		return nil, err
	}
	if old != nil && m.Epoch < old.Manifest.Epoch {
		return nil, fmt.Errorf("%w: epoch %d after %d", ErrOld, m.Epoch, old.Manifest.Epoch)
	}
	b := &Bundle{Manifest: m, Digest: digestOf(content), blobs: c.blobs}
	keep := map[threat.Hash]bool{}
	for _, s := range m.Sources {
		keep[s.Blob] = true
		if c.blobs.has(s.Blob) {
			continue
		}
		if err := f.blob(c.c.URL, s, c.blobs); err != nil {
			return nil, explain(err)
		}
	}
	if old == nil || old.Digest != b.Digest {
		if err := writeFile(c.manifestPath(), content, noStep); err != nil {
			return nil, err
		}
	}
	return b, c.blobs.collect(keep, 0)
}

// refresh follows the TUF client workflow and returns what the repository says
// about the manifest.
func (c *Client) refresh(f *fetcher) (*metadata.TargetFiles, error) {
	root, err := c.trustedRoot(f)
	if err != nil {
		return nil, err
	}
	c.dropDamaged()
	cfg, err := config.New(c.c.URL+"/metadata", root)
	if err != nil {
		return nil, err
	}
	cfg.Fetcher = f
	cfg.LocalMetadataDir = c.metadataDir()
	cfg.LocalTargetsDir = c.metadataDir()
	u, err := updater.New(cfg)
	if err != nil {
		return nil, err
	}
	u.UnsafeSetRefTime(c.c.Now())
	if err := u.Refresh(); err != nil {
		return nil, err
	}
	return u.GetTargetInfo(targetName)
}

// trustedRoot returns the newest root that was verified, else the pinned one.
func (c *Client) trustedRoot(f *fetcher) ([]byte, error) {
	newest, pinned := filepath.Join(c.metadataDir(), "root.json"), filepath.Join(c.c.Dir, "root.json")
	for _, path := range []string{newest, pinned} {
		data, err := os.ReadFile(path)
		if err == nil && json.Valid(data) {
			return data, nil
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("reading the trusted root: %w", err)
		}
	}
	root := c.c.Root
	if len(root) == 0 {
		var err error
		if root, err = f.get(c.c.URL+"/metadata/1.root.json", 512_000); err != nil {
			return nil, err
		}
	}
	if _, err := metadata.Root().FromBytes(root); err != nil {
		return nil, fmt.Errorf("pinning the root: %w", err)
	}
	return root, writeFile(pinned, root, noStep)
}

// dropDamaged removes cached metadata that a power cut left unreadable; it is
// fetched again. The manifest's epoch still prevents a roll-back.
func (c *Client) dropDamaged() {
	for _, role := range []string{metadata.TIMESTAMP, metadata.SNAPSHOT, metadata.TARGETS} {
		path := filepath.Join(c.metadataDir(), role+".json")
		data, err := os.ReadFile(path)
		if err == nil && !json.Valid(data) {
			c.c.Logger.Warn("removing damaged metadata", slog.String("path", path), slog.Any("error", os.Remove(path)))
		}
	}
}

// explain puts an error of the TUF library into our words.
func explain(err error) error {
	var status *metadata.ErrDownloadHTTP
	switch {
	case errors.As(err, &status) && status.StatusCode == http.StatusNotFound && strings.HasSuffix(status.URL, "/timestamp.json"):
		return ErrUnpublished
	case errors.Is(err, &metadata.ErrExpiredMetadata{}):
		return fmt.Errorf("%w: %w", ErrExpired, err)
	case errors.Is(err, &metadata.ErrBadVersionNumber{}):
		return fmt.Errorf("%w: %w", ErrOld, err)
	case errors.Is(err, &metadata.ErrUnsignedMetadata{}), errors.Is(err, &metadata.ErrLengthOrHashMismatch{}),
		errors.Is(err, &metadata.ErrDownloadLengthMismatch{}), errors.Is(err, ErrDamaged):
		return fmt.Errorf("%w: %w", ErrUntrusted, err)
	}
	return err
}
