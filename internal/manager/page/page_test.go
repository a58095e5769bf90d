package page

import (
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestSetup(t *testing.T) {
	t.Parallel()
	w := httptest.NewRecorder()
	Setup().ServeHTTP(w, httptest.NewRequest("GET", "/setup", nil))
	require.Equal(t, 200, w.Code)
	require.Contains(t, w.Body.String(), "/api/v1/setup")
	csp := w.Header().Get("Content-Security-Policy")
	require.Regexp(t, `script-src 'sha256-[A-Za-z0-9+/=]{44}'`, csp)
	require.Regexp(t, `style-src 'sha256-[A-Za-z0-9+/=]{44}'`, csp)
	require.NotContains(t, csp, "unsafe")
}
