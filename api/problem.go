package api

// Types of problems; they are stable.
const (
	ProblemInvalid      = "urn:lazaret:invalid"            // 400, 422: the request is wrong, Detail says where
	ProblemUnknown      = "urn:lazaret:unauthenticated"    // 401: log in or send a token
	ProblemDenied       = "urn:lazaret:denied"             // 403: no role of the caller allows it
	ProblemNotFound     = "urn:lazaret:not-found"          // 404
	ProblemMethod       = "urn:lazaret:method-not-allowed" // 405
	ProblemConflict     = "urn:lazaret:conflict"           // 409: exists already or is in another state
	ProblemRefused      = "urn:lazaret:refused"            // 409: a rule of the product forbids it
	ProblemPrecondition = "urn:lazaret:precondition"       // 412: the resource changed meanwhile; 428: If-Match is missing
	ProblemTooLarge     = "urn:lazaret:too-large"          // 413
	ProblemLimited      = "urn:lazaret:limited"            // 429: too many attempts, see Retry-After
	ProblemInternal     = "urn:lazaret:internal"           // 500: logged under the request id
	ProblemUnavailable  = "urn:lazaret:unavailable"        // 503: try later, see Retry-After
	ProblemTimeout      = "urn:lazaret:timeout"            // 504: the node did not answer in time
)
