package unpack

// window is the history of an LZ decoder. It grows with what was decoded, up
// to the dictionary size the stream asks for: a header that asks for much and
// holds little costs nothing.
type window struct {
	buf   []byte
	pos   int    // next byte in buf
	size  int    // dictionary size
	total uint64 // bytes since the last reset
}

const windowStart = 64 << 10

// init prepares for a dictionary of size bytes.
func (w *window) init(size uint32) {
	w.size = max(int(min(size, maxWindow)), 4096)
	w.pos, w.total = 0, 0
	if len(w.buf) > w.size {
		w.buf = w.buf[:w.size]
	}
}

// reset forgets the history.
func (w *window) reset() { w.pos, w.total = 0, 0 }

// room makes space behind pos, by growing or by wrapping, and returns how many
// bytes can be written before the next call.
func (w *window) room() int {
	if w.pos < len(w.buf) {
		return len(w.buf) - w.pos
	}
	if len(w.buf) < w.size {
		grown := make([]byte, min(max(2*len(w.buf), windowStart), w.size))
		copy(grown, w.buf)
		w.buf = grown
	} else {
		w.pos = 0
	}
	return len(w.buf) - w.pos
}

// has reports whether the byte dist+1 back is in the history.
func (w *window) has(dist uint32) bool {
	return uint64(dist) < w.total && uint64(dist) < uint64(w.size)
}

// at returns the byte dist+1 back; has must hold.
func (w *window) at(dist uint32) byte {
	i := w.pos - 1 - int(dist)
	if i < 0 {
		i += len(w.buf)
	}
	return w.buf[i]
}

// put appends a byte; there must be room.
func (w *window) put(b byte) {
	w.buf[w.pos] = b
	w.pos++
	w.total++
}

// copy repeats n bytes from dist+1 back; there must be room and has must hold.
func (w *window) copy(dist uint32, n int) {
	from := w.pos - 1 - int(dist)
	w.total += uint64(n)
	if from < 0 {
		from += len(w.buf)
	}
	if from == w.pos { // exactly one window back: the bytes are in place
		w.pos += n
		return
	}
	for n > 0 && from > w.pos { // the source begins behind the wrap
		k := copy(w.buf[w.pos:w.pos+min(n, len(w.buf)-from)], w.buf[from:])
		w.pos += k
		n -= k
		if from += k; from == len(w.buf) {
			from = 0
		}
	}
	for n > 0 { // source and target may overlap: copy whole periods
		k := copy(w.buf[w.pos:w.pos+min(n, w.pos-from)], w.buf[from:w.pos])
		w.pos += k
		n -= k
	}
}
