package manager

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/lazaret/lazaret/internal/task"
)

// shutdownWait is how long requests may finish after Run was told to end.
const shutdownWait = 5 * time.Second

// serve listens on the socket and the address until ctx ends. It owns what it
// opens.
func (m *Manager) serve(ctx context.Context) error {
	var servers []func(context.Context) error
	var opened []net.Listener
	closeAll := func() {
		for _, l := range opened {
			l.Close() //nolint:errcheck // closed already by its server
		}
	}
	defer closeAll()
	if m.Socket != "" {
		l, err := listenUnix(m.Socket)
		if err != nil {
			return err
		}
		opened = append(opened, l)
		servers = append(servers, m.server(l, nil))
	}
	if m.Listen != "" {
		conf, err := m.tls()
		if err != nil {
			return err
		}
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", m.Listen)
		if err != nil {
			return fmt.Errorf("listening on %s: %w", m.Listen, err)
		}
		opened = append(opened, l)
		servers = append(servers, m.server(l, conf))
	}
	return task.Run(ctx, servers...)
}

// tls checks that an address others can reach is encrypted.
func (m *Manager) tls() (*tls.Config, error) {
	if m.TLSCert == "" {
		host, _, err := net.SplitHostPort(m.Listen)
		if err != nil {
			return nil, fmt.Errorf("reading listen address: %w", err)
		}
		if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
			return nil, fmt.Errorf("listening on %s: other than loopback addresses need a TLS certificate and key", m.Listen)
		}
		return nil, nil //nolint:nilnil // no TLS is a value
	}
	cert, err := tls.LoadX509KeyPair(m.TLSCert, m.TLSKey)
	if err != nil {
		return nil, fmt.Errorf("reading TLS certificate: %w", err)
	}
	return &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13}, nil
}

// listenUnix makes the socket. Everybody may connect: what they may do is
// decided by their credentials, not by the file's mode. A socket left behind
// by a killed process is replaced; that of a living one is not.
func listenUnix(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("making socket directory: %w", err)
	}
	if c, err := net.DialTimeout("unix", path, time.Second); err == nil {
		c.Close() //nolint:errcheck // only a probe
		return nil, fmt.Errorf("listening on %s: another manager answers there", path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("removing old socket: %w", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("listening on %s: %w", path, err)
	}
	if err := os.Chmod(path, 0o666); err != nil {
		return nil, errors.Join(fmt.Errorf("opening socket to all: %w", err), l.Close())
	}
	return l, nil
}

// server serves one listener. Streams end first, then requests get a moment.
func (m *Manager) server(l net.Listener, conf *tls.Config) func(context.Context) error {
	return func(ctx context.Context) error {
		s := &http.Server{
			Handler: m.Handler(), TLSConfig: conf, ConnContext: connContext,
			ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 32 << 10,
			ErrorLog: log.New(lines{m.Logger}, "", 0),
		}
		done := make(chan error, 1)
		go func() {
			if conf != nil {
				done <- s.ServeTLS(l, "", "")
				return
			}
			done <- s.Serve(l)
		}()
		m.Logger.InfoContext(ctx, "manager listens", slog.String("address", l.Addr().String()))
		select {
		case err := <-done:
			return fmt.Errorf("serving %s: %w", l.Addr(), err)
		case <-ctx.Done():
		}
		m.stop.Do(func() { close(m.stopping) })
		wait, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownWait)
		defer cancel()
		if err := s.Shutdown(wait); err != nil {
			return errors.Join(s.Close())
		}
		return nil
	}
}

// lines passes the HTTP server's own messages to the logger.
type lines struct{ logger *slog.Logger }

func (l lines) Write(b []byte) (int, error) {
	l.logger.Debug("http server", slog.String("message", string(b)))
	return len(b), nil
}
