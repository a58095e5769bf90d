// Package worker runs inspection in sandboxed processes. Pool is the
// privileged side: it hands descriptors to workers and reads verdicts, and
// never looks at content itself except to hash what a worker could not
// survive. Serve is the loop inside a worker. Compile runs the rule compiler
// in the same kind of process.
//
// # Protocol
//
// One SOCK_SEQPACKET socket per worker, one request at a time, numbers in
// little endian. Every message begins with its type and stays below 64 KiB.
//
//	to the worker    L  JSON loading      + descriptors of the compiled signatures
//	                 I  request           + descriptor of the file
//	from the worker  R  JSON readiness    the signatures are loaded
//	                 F  text              they could not be loaded; the worker ends
//	                 O  answer            objects, more follow
//	                 D  answer            the last objects; the request is done
//
//	request   id u64, depth, members, member size, total, ratio, ratio after, buffer, time: 8 × i64
//	answer    id u64, elapsed i64 ns, fault u16 + text, then per object: length u32, JSON of threat.Object
//
// A worker that answers with another id, more objects than the limits allow
// or anything malformed is killed: it counts as crashed.
package worker

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/lazaret/lazaret/internal/engine"
	"github.com/lazaret/lazaret/internal/engine/sandbox"
	"github.com/lazaret/lazaret/internal/threat"
)

// Message types.
const (
	msgLoad    = 'L'
	msgInspect = 'I'
	msgReady   = 'R'
	msgFailed  = 'F'
	msgObjects = 'O'
	msgDone    = 'D'
)

// maxMessage bounds a message; it fits the default socket buffer several times.
const maxMessage = 64 << 10

// loading names the descriptors that come with it, in order.
type loading struct {
	Files []string     `json:"files"`
	Epoch threat.Epoch `json:"epoch"`
}

// Readiness is what a worker says about itself once it can inspect.
type Readiness struct {
	Rules   int             `json:"rules"`
	Hashes  int64           `json:"hashes"`
	Sandbox *sandbox.Report `json:"sandbox,omitempty"`
}

const requestSize = 1 + 8 + 8*8

func appendRequest(b []byte, id uint64, l engine.Limits) []byte {
	b = append(b, msgInspect)
	b = binary.LittleEndian.AppendUint64(b, id)
	for _, n := range [...]int64{int64(l.Depth), int64(l.Members), l.MemberSize, l.Total,
		l.Ratio, l.RatioAfter, l.Buffer, int64(l.Time)} {
		b = binary.LittleEndian.AppendUint64(b, uint64(n))
	}
	return b
}

var errMalformed = errors.New("malformed message")

func parseRequest(b []byte) (id uint64, l engine.Limits, err error) {
	if len(b) != requestSize || b[0] != msgInspect {
		return 0, l, errMalformed
	}
	id = binary.LittleEndian.Uint64(b[1:])
	at := func(i int) int64 { return int64(binary.LittleEndian.Uint64(b[9+8*i:])) }
	return id, engine.Limits{Depth: int(at(0)), Members: int(at(1)), MemberSize: at(2), Total: at(3),
		Ratio: at(4), RatioAfter: at(5), Buffer: at(6), Time: time.Duration(at(7))}, nil
}

const answerHeader = 1 + 8 + 8 + 2

// answer is a parsed O or D message.
type answer struct {
	done    bool
	id      uint64
	elapsed time.Duration
	fault   string // why the file could not be inspected completely
	objects []threat.Object
}

// beginAnswer starts an answer in b; the fault is cut to 1 KiB.
func beginAnswer(b []byte, id uint64, fault string) []byte {
	fault = fault[:min(len(fault), 1<<10)]
	b = append(b, msgObjects)
	b = binary.LittleEndian.AppendUint64(b, id)
	b = binary.LittleEndian.AppendUint64(b, 0)
	b = binary.LittleEndian.AppendUint16(b, uint16(len(fault)))
	return append(b, fault...)
}

func appendObject(b, encoded []byte) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(len(encoded)))
	return append(b, encoded...)
}

// finishAnswer turns the answer in b into the last one.
func finishAnswer(b []byte, elapsed time.Duration) {
	b[0] = msgDone
	binary.LittleEndian.PutUint64(b[9:], uint64(elapsed))
}

func parseAnswer(b []byte) (a answer, err error) {
	if len(b) < answerHeader || b[0] != msgObjects && b[0] != msgDone {
		return a, errMalformed
	}
	a.done = b[0] == msgDone
	a.id = binary.LittleEndian.Uint64(b[1:])
	a.elapsed = time.Duration(binary.LittleEndian.Uint64(b[9:]))
	n := int(binary.LittleEndian.Uint16(b[17:]))
	b = b[answerHeader:]
	if n > len(b) {
		return a, errMalformed
	}
	a.fault = string(b[:n])
	for b = b[n:]; len(b) > 0; {
		if len(b) < 4 {
			return a, errMalformed
		}
		n := binary.LittleEndian.Uint32(b)
		b = b[4:]
		if uint64(n) > uint64(len(b)) {
			return a, errMalformed
		}
		var o threat.Object
		if err := json.Unmarshal(b[:n], &o); err != nil {
			return a, fmt.Errorf("parsing an object: %w", err)
		}
		switch o.Verdict {
		case threat.Clean, threat.Partial, threat.Error, threat.Suspicious, threat.Malicious:
		default:
			return a, fmt.Errorf("an object without a known verdict: %q", o.Verdict)
		}
		a.objects = append(a.objects, o)
		b = b[n:]
	}
	return a, nil
}
