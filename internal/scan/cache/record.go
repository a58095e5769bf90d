package cache

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"

	"github.com/klauspost/compress/zstd"

	"github.com/lazaret/lazaret/internal/event"
	"github.com/lazaret/lazaret/internal/threat"
)

// Record is what is remembered of one object.
type Record struct {
	Hash    threat.Hash
	Epoch   threat.Epoch
	Verdict threat.Verdict
	Type    string
	Size    int64 // bytes
	// Count of objects: the file itself and its members.
	Count int
	// Limits is the checksum of the limits the result depends on; 0 if it would
	// be the same under any limits.
	Limits uint32
	// Detail says that there is more to know than this record: detections,
	// reasons or members.
	Detail bool
}

// valid says whether the record answers for an epoch and the limits asked for.
func (r *Record) valid(epoch threat.Epoch, limits uint32) bool {
	return r.Verdict != "" && r.Epoch == epoch && (r.Limits == 0 || r.Limits == limits)
}

// plain makes the only object of a record without detail.
func (r *Record) plain() []threat.Object {
	return []threat.Object{{Hash: r.Hash, Size: r.Size, Type: r.Type, Verdict: r.Verdict}}
}

// summarize makes the record of a result; objects[0] is the file itself.
func summarize(objects []threat.Object, epoch threat.Epoch, limits uint32) Record {
	r := Record{
		Hash: objects[0].Hash, Size: objects[0].Size, Type: objects[0].Type,
		Epoch: epoch, Count: len(objects), Limits: limits,
	}
	for i := range objects {
		o := &objects[i]
		r.Verdict = threat.Worst(r.Verdict, o.Verdict)
		r.Detail = r.Detail || i > 0 || o.Verdict != threat.Clean || len(o.Reasons) > 0 || len(o.Detections) > 0
	}
	return r
}

var verdicts = [...]threat.Verdict{"", threat.Clean, threat.Partial, threat.Suspicious, threat.Malicious, threat.Error}

func verdictCode(v threat.Verdict) uint8 {
	for i, x := range verdicts {
		if x == v {
			return uint8(i)
		}
	}
	return 0
}

func verdictOf(code uint8) threat.Verdict {
	if int(code) < len(verdicts) {
		return verdicts[code]
	}
	return ""
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// sum protects a row against damage that SQLite does not notice: a flipped bit
// must not turn a verdict into clean.
func (r *Record) sum() uint32 {
	var b [128]byte
	p := append(b[:0], r.Hash[:]...)
	p = binary.LittleEndian.AppendUint64(p, uint64(r.Epoch))
	p = binary.LittleEndian.AppendUint64(p, uint64(r.Size))
	p = binary.LittleEndian.AppendUint64(p, uint64(r.Count))
	p = binary.LittleEndian.AppendUint32(p, r.Limits)
	p = append(p, verdictCode(r.Verdict))
	if r.Detail {
		p = append(p, 1)
	}
	return crc32.Update(crc32.Checksum(p, castagnoli), castagnoli, []byte(r.Type))
}

func keySum(k event.FileKey, h threat.Hash) uint32 {
	var b [80]byte
	p := binary.LittleEndian.AppendUint64(b[:0], k.Dev)
	p = binary.LittleEndian.AppendUint64(p, k.Ino)
	p = binary.LittleEndian.AppendUint64(p, uint64(k.CTime))
	p = binary.LittleEndian.AppendUint64(p, uint64(k.MTime))
	p = binary.LittleEndian.AppendUint64(p, uint64(k.Size))
	return crc32.Checksum(append(p, h[:]...), castagnoli)
}

// maxDetail bounds the unpacked size of stored details in bytes.
const maxDetail = 256 << 20

// codec packs the objects of a result; zstd frames carry their own checksum.
type codec struct {
	enc *zstd.Encoder
	dec *zstd.Decoder
}

func newCodec() (*codec, error) {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true))
	if err != nil {
		return nil, fmt.Errorf("making encoder: %w", err)
	}
	dec, err := zstd.NewReader(nil, zstd.WithDecoderMaxMemory(maxDetail), zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true))
	if err != nil {
		return nil, fmt.Errorf("making decoder: %w", err)
	}
	return &codec{enc: enc, dec: dec}, nil
}

func (c *codec) close() { c.dec.Close() }

func (c *codec) pack(objects []threat.Object) ([]byte, error) {
	b, err := json.Marshal(objects)
	if err != nil {
		return nil, fmt.Errorf("packing objects: %w", err)
	}
	return c.enc.EncodeAll(b, nil), nil
}

func (c *codec) unpack(b []byte) ([]threat.Object, error) {
	raw, err := c.dec.DecodeAll(b, nil)
	if err != nil {
		return nil, fmt.Errorf("unpacking objects: %w", err)
	}
	var objects []threat.Object
	if err := json.Unmarshal(raw, &objects); err != nil {
		return nil, fmt.Errorf("unpacking objects: %w", err)
	}
	if len(objects) == 0 {
		return nil, fmt.Errorf("unpacking objects: there are none")
	}
	return objects, nil
}
