package unpack

import "github.com/lazaret/lazaret/internal/threat"

// streams reads a StreamsInfo structure up to its end mark.
func (p *sevenParser) streams() (*sevenStreams, error) {
	st := new(sevenStreams)
	id := p.byte()
	if id == sevenPackID {
		p.packInfo(st)
		id = p.byte()
	}
	if id == sevenUnpackID {
		if err := p.unpackInfo(st); err != nil {
			return nil, err
		}
		id = p.byte()
	}
	for i := range st.folders { // without SubStreamsInfo a folder is one file
		f := &st.folders[i]
		f.sub = []sevenSub{{size: f.size(), crc: f.crc, hasCRC: f.hasCRC}}
	}
	if id == sevenSubID {
		if err := p.subStreams(st); err != nil {
			return nil, err
		}
		id = p.byte()
	}
	if p.bad || id != sevenEndID {
		return nil, errSeven
	}
	return st, nil
}

// packInfo reads where the packed streams are.
func (p *sevenParser) packInfo(st *sevenStreams) {
	st.packPos = p.number()
	n := p.count()
	for id := p.byte(); id != sevenEndID && !p.bad; id = p.byte() {
		switch id {
		case sevenSizeID:
			for range n {
				st.packed = append(st.packed, p.number())
			}
		case sevenCRCID:
			p.digests(n, func(int, uint32) {})
		default:
			p.bad = true
		}
	}
	if len(st.packed) != n {
		p.bad = true
	}
}

// unpackInfo reads the folders.
func (p *sevenParser) unpackInfo(st *sevenStreams) error {
	if p.byte() != sevenFolderID {
		return errSeven
	}
	n := p.count()
	if p.byte() != 0 {
		return Fail(threat.ReasonUnknownMethod, "folders are stored outside the header")
	}
	first := 0
	for i := 0; i < n && !p.bad; i++ {
		f := p.folder()
		f.first = first
		first += len(f.inputs)
		if first > len(st.packed) {
			return errSeven
		}
		st.folders = append(st.folders, f)
	}
	if p.bad || p.byte() != sevenCodersID {
		return errSeven
	}
	for i := range st.folders {
		for j := range st.folders[i].sizes {
			st.folders[i].sizes[j] = p.number()
		}
	}
	id := p.byte()
	if id == sevenCRCID {
		p.digests(len(st.folders), func(i int, crc uint32) { st.folders[i].crc, st.folders[i].hasCRC = crc, true })
		id = p.byte()
	}
	if p.bad || id != sevenEndID {
		return errSeven
	}
	return nil
}

// folder reads the coders of a folder and how they are connected.
func (p *sevenParser) folder() (f sevenFolder) {
	n := p.number()
	if n == 0 || n > maxSevenCoders {
		p.bad = true
		return f
	}
	var in, out uint64
	for range n {
		c := sevenCoder{in: 1, out: 1}
		flags := p.byte()
		for _, b := range p.take(uint64(flags & 15)) {
			c.id = c.id<<8 | uint64(b)
		}
		if flags&0x10 != 0 {
			c.in, c.out = p.number(), p.number()
		}
		if flags&0x20 != 0 {
			c.props = p.take(p.number())
		}
		if flags&0xc0 != 0 || c.in > maxSevenCoders || c.out > maxSevenCoders {
			p.bad = true
		}
		if p.bad {
			return f
		}
		in, out = in+c.in, out+c.out
		f.coders = append(f.coders, c)
	}
	if out == 0 || in < out-1 || in > maxSevenCoders || out > maxSevenCoders {
		p.bad = true
		return f
	}
	for range out - 1 {
		b := sevenBond{in: p.number(), out: p.number()}
		if b.in >= in || b.out >= out {
			p.bad = true
		}
		f.bonds = append(f.bonds, b)
	}
	switch packed := in - (out - 1); {
	case packed == 1:
		f.inputs = []uint64{f.freeInput(in)}
	default:
		for range packed {
			f.inputs = append(f.inputs, p.number())
		}
	}
	f.sizes = make([]uint64, out)
	return f
}

// freeInput is the only in-stream that no coder feeds.
func (f *sevenFolder) freeInput(in uint64) uint64 {
next:
	for i := range in {
		for _, b := range f.bonds {
			if b.in == i {
				continue next
			}
		}
		return i
	}
	return 0
}

// subStreams reads how folders are cut into files.
func (p *sevenParser) subStreams(st *sevenStreams) error {
	id := p.byte()
	counts := make([]uint64, len(st.folders))
	for i := range counts {
		counts[i] = 1
	}
	if id == sevenNumberID {
		for i := range counts {
			counts[i] = p.number()
		}
		id = p.byte()
	}
	hasSizes := id == sevenSizeID
	unknown := 0 // files whose checksum is not that of their folder
	for i := range st.folders {
		f := &st.folders[i]
		n, rest := counts[i], f.size()
		if n > 1 && (!hasSizes || n-1 > uint64(len(p.b))) {
			return errSeven
		}
		if n == 1 && f.hasCRC {
			continue
		}
		f.sub = f.sub[:0]
		for j := uint64(0); j < n; j++ {
			size := rest
			if j < n-1 {
				size = p.number()
			}
			if size > rest || p.bad {
				return errSeven
			}
			rest -= size
			f.sub = append(f.sub, sevenSub{size: size})
		}
		unknown += len(f.sub)
	}
	if hasSizes {
		id = p.byte()
	}
	for ; id != sevenEndID && !p.bad; id = p.byte() {
		if id != sevenCRCID {
			return errSeven
		}
		subs := make([]*sevenSub, 0, unknown)
		for i := range st.folders {
			if f := &st.folders[i]; counts[i] != 1 || !f.hasCRC {
				for j := range f.sub {
					subs = append(subs, &f.sub[j])
				}
			}
		}
		p.digests(len(subs), func(i int, crc uint32) { subs[i].crc, subs[i].hasCRC = crc, true })
	}
	return nil
}
