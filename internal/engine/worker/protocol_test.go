package worker

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/lazaret/lazaret/internal/engine"
	"github.com/lazaret/lazaret/internal/threat"
)

func TestRequestRoundTrip(t *testing.T) {
	t.Parallel()
	limits := engine.Limits{Depth: 1, Members: 2, MemberSize: 3, Total: 4, Ratio: 5, RatioAfter: 6, Buffer: 7, Time: 8}
	b := appendRequest(nil, 9, limits)
	require.Len(t, b, requestSize)
	id, got, err := parseRequest(b)
	require.NoError(t, err)
	require.EqualValues(t, 9, id)
	require.Equal(t, limits, got)
	for _, bad := range [][]byte{nil, b[:10], append(b, 0), append([]byte{'X'}, b[1:]...)} {
		_, _, err := parseRequest(bad)
		require.ErrorIs(t, err, errMalformed)
	}
}

func TestAnswerRoundTrip(t *testing.T) {
	t.Parallel()
	objects := []threat.Object{{Size: 3, Verdict: threat.Clean}, {Member: "a!/b", Verdict: threat.Malicious,
		Detections: []threat.Detection{{Signature: "S", Engine: "yara", Severity: threat.High}}}}
	b := beginAnswer(nil, 4, "half of it")
	for i := range objects {
		encoded, err := encode(&objects[i])
		require.NoError(t, err)
		b = appendObject(b, encoded)
	}
	a, err := parseAnswer(b)
	require.NoError(t, err)
	require.Equal(t, answer{id: 4, fault: "half of it", objects: objects}, a)
	finishAnswer(b, time.Second)
	a, err = parseAnswer(b)
	require.NoError(t, err)
	require.True(t, a.done)
	require.Equal(t, time.Second, a.elapsed)
	for n := range b {
		if _, err := parseAnswer(b[:n]); err == nil {
			require.Contains(t, []int{answerHeader + len("half of it"), answerHeader + len("half of it") + 4 + mustLen(t, objects[0])}, n)
		}
	}
}

func mustLen(t *testing.T, o threat.Object) int {
	b, err := json.Marshal(o)
	require.NoError(t, err)
	return len(b)
}

// However long an object's texts, its verdict fits into a message.
func TestEncodeKeepsTheVerdict(t *testing.T) {
	t.Parallel()
	huge := strings.Repeat("\x01\"", 1<<16)
	o := threat.Object{Member: huge, Type: huge, Verdict: threat.Malicious}
	for range 200 {
		o.Detections = append(o.Detections, threat.Detection{Signature: huge, Severity: threat.High, Description: huge})
		o.Reasons = append(o.Reasons, threat.Reason{Code: threat.ReasonDamaged, Text: huge})
	}
	b, err := encode(&o)
	require.NoError(t, err)
	require.LessOrEqual(t, len(b), maxEncoded)
	var got threat.Object
	require.NoError(t, json.Unmarshal(b, &got))
	require.Equal(t, threat.Malicious, got.Verdict)
	require.NotEmpty(t, got.Detections)
	require.Len(t, o.Detections, 200, "the object itself is not changed")
}

func FuzzParseAnswer(f *testing.F) {
	b := beginAnswer(nil, 4, "fault")
	b = appendObject(b, []byte(`{"sha256":"","size":1,"verdict":"clean"}`))
	f.Add(b)
	f.Add([]byte{msgDone})
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := parseAnswer(b)
		if err != nil {
			return
		}
		for _, o := range a.objects {
			if o.Verdict == "" {
				t.Fatal("an object without a verdict was accepted")
			}
		}
	})
}

func FuzzParseRequest(f *testing.F) {
	f.Add(appendRequest(nil, 1, engine.DefaultLimits()))
	f.Fuzz(func(t *testing.T, b []byte) {
		id, limits, err := parseRequest(b)
		if err == nil && string(appendRequest(nil, id, limits)) != string(b) {
			t.Fatal("a request did not survive")
		}
	})
}
