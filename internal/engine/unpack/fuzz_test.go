package unpack

import (
	"archive/zip"
	"context"
	"io"
	"testing"
	"time"

	"github.com/lazaret/lazaret/internal/engine"
	"github.com/lazaret/lazaret/internal/engine/filetype"
)

// fuzzLimits keep one execution short.
var fuzzLimits = engine.Limits{Depth: 3, Members: 100, Total: 4 << 20, RatioAfter: 1 << 20, Time: 5 * time.Second}

// fuzzType opens arbitrary bytes as one type. The engine's limits must hold
// and every walk must end with a result.
func fuzzType(f *testing.F, typ filetype.Type, seeds ...[]byte) {
	for _, s := range seeds {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		u := New()
		defer u.Close()
		b := NewBudget(fuzzLimits, int64(len(data)))
		visit := func(m *Member) error {
			if len(m.Name) == 0 || len(m.Name) > maxName {
				t.Fatalf("name %q", m.Name)
			}
			if m.Data != nil {
				return nil
			}
			n, err := io.Copy(io.Discard, m.Reader)
			if n > fuzzLimits.Total+readChunk {
				t.Fatalf("%d bytes unpacked", n)
			}
			return err
		}
		if _, err := u.Walk(context.Background(), &Source{Type: typ, Data: data}, b, visit); err != nil {
			t.Fatal(err)
		}
	})
}

func FuzzZip(f *testing.F) {
	fuzzType(f, filetype.Zip, rawZip(stored("a", noteText)), zipOf(f, zip.Deflate, entry{"a", noteText}), fixture(f, "LZMA.zip")[:64])
}

func FuzzSeven(f *testing.F) {
	fuzzType(f, filetype.Seven, fixture(f, "LZMA.7z"), fixture(f, "filter-BCJ2.7z"), fixture(f, "Copy.7z"), fixture(f, "encrypted.7z"))
}

// FuzzSevenHeader skips the checksums that protect the header from a fuzzer.
func FuzzSevenHeader(f *testing.F) {
	f.Add([]byte("\x01\x04\x06\x00\x01\x09\x05\x00\x07\x0b\x01\x00\x01\x01\x00\x0c\x05\x00\x08\x0a\x01\x00\x00\x00\x00\x00\x00\x05\x01\x11\x05\x00a\x00\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		p := sevenParser{fields{b: data}}
		if p.byte() != sevenHeaderID {
			return
		}
		h, err := p.header()
		if err != nil {
			return
		}
		for files := h.files(); files.next() != ""; {
		}
		s := &sevenWalk{walk: &walk{u: New(), ctx: context.Background(), b: NewBudget(fuzzLimits, 100), visit: func(m *Member) error {
			_, err := io.Copy(io.Discard, m.Reader)
			return err
		}}, src: &Source{Data: data}, size: int64(len(data))}
		s.r = s.src.readerAt()
		if err := s.protect(func() error { return s.members(h) }); err != nil && s.abort != nil {
			t.Fatal(s.abort)
		}
	})
}

func FuzzTar(f *testing.F) {
	fuzzType(f, filetype.Tar, tarOf(f, entry{"a", noteText}), fixture(f, "sparse-gnu.tar")[:1024], fixture(f, "sparse-pax.tar")[:3072])
}

func FuzzCPIO(f *testing.F) {
	fuzzType(f, filetype.CPIO, cpioOf(entry{"a", noteText}), fixture(f, "odc.cpio")[:200], fixture(f, "bin.cpio")[:200])
}

func FuzzAR(f *testing.F) {
	fuzzType(f, filetype.AR, arOf(entry{"a-name-of-more-than-fifteen-bytes", noteText}), []byte("!<arch>\n#1/4            0           0     0     100644  8         `\nnamedata"))
}

func FuzzRPM(f *testing.F) {
	fuzzType(f, filetype.RPM, rpmOf(gzipOf(f, "", cpioOf(entry{"a", noteText}))), rpmOf(cpioOf(entry{"a", noteText})))
}

func FuzzGzip(f *testing.F) { fuzzType(f, filetype.Gzip, gzipOf(f, "a", noteText)) }

func FuzzBzip2(f *testing.F) { fuzzType(f, filetype.Bzip2, fixture(f, "a.tar.bz2")) }

func FuzzXZ(f *testing.F) {
	fuzzType(f, filetype.XZ, fixture(f, "streams.xz"), fixture(f, "a.tar.x86.xz"), fixture(f, "a.tar.blocks.xz"))
}

func FuzzLZMA(f *testing.F) { fuzzType(f, filetype.LZMA, fixture(f, "a.tar.lzma")) }

func FuzzZstd(f *testing.F) { fuzzType(f, filetype.Zstd, zstdOf(f, noteText)) }

func FuzzLZ4(f *testing.F) {
	fuzzType(f, filetype.LZ4, lz4Of(f, noteText), fixture(f, "a.tar.legacy.lz4"))
}

// FuzzLZMA2 feeds the decoder directly: xz's checksums stop a fuzzer early.
func FuzzLZMA2(f *testing.F) {
	f.Add(fixture(f, "a.tar.xz")[24:], byte(8))
	f.Fuzz(func(t *testing.T, data []byte, dict byte) {
		z := new(lzma2Reader)
		c := (&walk{u: New()}).cursor(&Source{Data: data})
		if z.reset(c.input(), dict, -1) != nil {
			return
		}
		_, _ = io.CopyN(io.Discard, z, 8<<20)
		if len(z.d.win.buf) > z.d.win.size {
			t.Fatalf("window of %d bytes instead of %d", len(z.d.win.buf), z.d.win.size)
		}
	})
}

// FuzzFilter: branch filters give back as many bytes as they take.
func FuzzFilter(f *testing.F) {
	f.Add(program(), uint64(4), uint32(0))
	f.Fuzz(func(t *testing.T, data []byte, id uint64, pos uint32) {
		r, err := newFilter(id%12, le(nil, 4, uint64(pos)), (&walk{u: New()}).cursor(&Source{Data: data}).input())
		if err != nil {
			return
		}
		n, err := io.Copy(io.Discard, r)
		if err != nil || n != int64(len(data)) {
			t.Fatalf("%d bytes from %d: %v", n, len(data), err)
		}
	})
}

// FuzzAppended looks for containers in what claims to be a program or script.
func FuzzAppended(f *testing.F) {
	f.Add([]byte("#!/bin/sh\n\x1f\x8b\x08"))
	f.Add(append([]byte("#!/bin/sh\nexit\n"), gzipOf(f, "", noteText)...))
	f.Add(append([]byte("\x7fELF\x02\x01\x01"), make([]byte, 120)...))
	f.Add(append([]byte("MZ"), make([]byte, 200)...))
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, typ := range []filetype.Type{filetype.Script, filetype.ELF, filetype.PE} {
			u := New()
			_, err := u.Walk(context.Background(), &Source{Type: typ, Data: data}, NewBudget(fuzzLimits, int64(len(data))), func(m *Member) error {
				if m.Reader != nil {
					_, err := io.Copy(io.Discard, m.Reader)
					return err
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			u.Close()
		}
	})
}
