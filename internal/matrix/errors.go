package matrix

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"time"
)

// Code is a Matrix error code such as "M_FORBIDDEN".
type Code string

// The error codes of the specification that Teahouse answers with.
// spec: client-server#standard-error-response
const (
	CodeForbidden              Code = "M_FORBIDDEN"
	CodeUnknownToken           Code = "M_UNKNOWN_TOKEN"
	CodeMissingToken           Code = "M_MISSING_TOKEN"
	CodeUserLocked             Code = "M_USER_LOCKED"
	CodeUserSuspended          Code = "M_USER_SUSPENDED"
	CodeUserDeactivated        Code = "M_USER_DEACTIVATED"
	CodeBadJSON                Code = "M_BAD_JSON"
	CodeNotJSON                Code = "M_NOT_JSON"
	CodeNotFound               Code = "M_NOT_FOUND"
	CodeLimitExceeded          Code = "M_LIMIT_EXCEEDED"
	CodeUnrecognized           Code = "M_UNRECOGNIZED"
	CodeUnknown                Code = "M_UNKNOWN"
	CodeUnauthorized           Code = "M_UNAUTHORIZED"
	CodeUserInUse              Code = "M_USER_IN_USE"
	CodeInvalidUsername        Code = "M_INVALID_USERNAME"
	CodeRoomInUse              Code = "M_ROOM_IN_USE"
	CodeInvalidRoomState       Code = "M_INVALID_ROOM_STATE"
	CodeThreepidInUse          Code = "M_THREEPID_IN_USE"
	CodeThreepidNotFound       Code = "M_THREEPID_NOT_FOUND"
	CodeThreepidAuthFailed     Code = "M_THREEPID_AUTH_FAILED"
	CodeThreepidDenied         Code = "M_THREEPID_DENIED"
	CodeThreepidMediumUnsupp   Code = "M_THREEPID_MEDIUM_NOT_SUPPORTED"
	CodeServerNotTrusted       Code = "M_SERVER_NOT_TRUSTED"
	CodeUnsupportedRoomVersion Code = "M_UNSUPPORTED_ROOM_VERSION"
	CodeIncompatibleRoom       Code = "M_INCOMPATIBLE_ROOM_VERSION"
	CodeBadState               Code = "M_BAD_STATE"
	CodeGuestAccessForbidden   Code = "M_GUEST_ACCESS_FORBIDDEN"
	CodeCaptchaNeeded          Code = "M_CAPTCHA_NEEDED"
	CodeCaptchaInvalid         Code = "M_CAPTCHA_INVALID"
	CodeMissingParam           Code = "M_MISSING_PARAM"
	CodeInvalidParam           Code = "M_INVALID_PARAM"
	CodeTooLarge               Code = "M_TOO_LARGE"
	CodeExclusive              Code = "M_EXCLUSIVE"
	CodeResourceLimitExceeded  Code = "M_RESOURCE_LIMIT_EXCEEDED"
	CodeCannotLeaveServerNotic Code = "M_CANNOT_LEAVE_SERVER_NOTICE_ROOM"
	CodeWeakPassword           Code = "M_WEAK_PASSWORD"
	CodeUnableToAuthoriseJoin  Code = "M_UNABLE_TO_AUTHORISE_JOIN"
	CodeUnableToGrantJoin      Code = "M_UNABLE_TO_GRANT_JOIN"
	CodeBadAlias               Code = "M_BAD_ALIAS"
	CodeDuplicateAnnotation    Code = "M_DUPLICATE_ANNOTATION"
	CodeWrongRoomKeysVersion   Code = "M_WRONG_ROOM_KEYS_VERSION"
	CodeNotYetUploaded         Code = "M_NOT_YET_UPLOADED"
	CodeCannotOverwriteMedia   Code = "M_CANNOT_OVERWRITE_MEDIA"
	CodeURLNotSet              Code = "M_URL_NOT_SET"
	CodeBadStatus              Code = "M_BAD_STATUS"
	CodeConnectionFailed       Code = "M_CONNECTION_FAILED"
	CodeConnectionTimeout      Code = "M_CONNECTION_TIMEOUT"
	CodeInviteBlocked          Code = "M_INVITE_BLOCKED"
	CodeProfileTooLarge        Code = "M_PROFILE_TOO_LARGE"
	CodeKeyTooLarge            Code = "M_KEY_TOO_LARGE"
	CodeUnknownPos             Code = "M_UNKNOWN_POS"
)

// Error is the one error type that reaches a client. Text is safe to show and
// says what to do next; the cause goes to the log only.
type Error struct {
	Status int            // the HTTP status
	Code   Code           // errcode; "" leaves errcode and error out of the answer
	Text   string         // error
	Extra  map[string]any // further members of the answer, such as soft_logout
	cause  error
}

// NewError makes an error with a formatted text that is safe to show.
func NewError(status int, code Code, format string, args ...any) *Error {
	return &Error{Status: status, Code: code, Text: fmt.Sprintf(format, args...)}
}

func (e *Error) Error() string {
	if e.cause != nil {
		return fmt.Sprintf("%s (%d): %s: %v", e.Code, e.Status, e.Text, e.cause)
	}
	return fmt.Sprintf("%s (%d): %s", e.Code, e.Status, e.Text)
}

// Unwrap returns the private cause.
func (e *Error) Unwrap() error { return e.cause }

// Because returns a copy of e with a private cause.
func (e *Error) Because(cause error) *Error {
	c := *e
	c.cause = cause
	return &c
}

// With returns a copy of e that carries one more member in its answer.
func (e *Error) With(key string, value any) *Error {
	c := *e
	c.Extra = maps.Clone(e.Extra)
	if c.Extra == nil {
		c.Extra = make(map[string]any, 1)
	}
	c.Extra[key] = value
	return &c
}

// MarshalJSON gives the standard error response. Without a Code, as where a
// client is asked to authenticate, it has only the further members.
func (e *Error) MarshalJSON() ([]byte, error) {
	body := make(map[string]any, len(e.Extra)+2)
	maps.Copy(body, e.Extra)
	if e.Code != "" {
		body["errcode"] = e.Code
		body["error"] = e.Text
	}
	return json.Marshal(body)
}

// AsError finds the *Error in err, or wraps err as an internal error whose text
// tells nothing.
func AsError(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return Internal(err)
}

// HasCode tells whether err carries the code.
func HasCode(err error, code Code) bool {
	var e *Error
	return errors.As(err, &e) && e.Code == code
}

// Internal is a 500 that hides its cause from the client.
func Internal(cause error) *Error {
	return NewError(http.StatusInternalServerError, CodeUnknown, "Internal server error").Because(cause)
}

// Forbidden is a 403 M_FORBIDDEN.
func Forbidden(format string, args ...any) *Error {
	return NewError(http.StatusForbidden, CodeForbidden, format, args...)
}

// NotFound is a 404 M_NOT_FOUND.
func NotFound(format string, args ...any) *Error {
	return NewError(http.StatusNotFound, CodeNotFound, format, args...)
}

// BadJSON is a 400 M_BAD_JSON: JSON, but not what the endpoint takes.
func BadJSON(format string, args ...any) *Error {
	return NewError(http.StatusBadRequest, CodeBadJSON, format, args...)
}

// NotJSON is a 400 M_NOT_JSON.
func NotJSON(format string, args ...any) *Error {
	return NewError(http.StatusBadRequest, CodeNotJSON, format, args...)
}

// InvalidParam is a 400 M_INVALID_PARAM.
func InvalidParam(format string, args ...any) *Error {
	return NewError(http.StatusBadRequest, CodeInvalidParam, format, args...)
}

// MissingParam is a 400 M_MISSING_PARAM.
func MissingParam(format string, args ...any) *Error {
	return NewError(http.StatusBadRequest, CodeMissingParam, format, args...)
}

// TooLarge is a 413 M_TOO_LARGE.
func TooLarge(format string, args ...any) *Error {
	return NewError(http.StatusRequestEntityTooLarge, CodeTooLarge, format, args...)
}

// Unrecognized is a 404 (unknown path) or 405 (known path, wrong method)
// M_UNRECOGNIZED.
// spec: client-server#common-error-codes
func Unrecognized(status int) *Error {
	return NewError(status, CodeUnrecognized, "Unrecognized request")
}

// MissingToken is the 401 for a request without an access token.
func MissingToken() *Error {
	return NewError(http.StatusUnauthorized, CodeMissingToken, "Missing access token")
}

// UnknownToken is the 401 for a token that is not, or no longer, valid. With
// soft the client keeps its data and logs in again or refreshes.
// spec: client-server#soft-logout
func UnknownToken(soft bool) *Error {
	e := NewError(http.StatusUnauthorized, CodeUnknownToken, "Unknown or expired access token; log in again")
	if soft {
		e = e.With("soft_logout", true)
	}
	return e
}

// LimitExceeded is a 429 that says when to come back.
// spec: client-server#rate-limiting
func LimitExceeded(retryAfter time.Duration) *Error {
	// Rounded up: whoever comes back on time must not be early.
	ms := max((retryAfter + time.Millisecond - 1).Milliseconds(), 1)
	return NewError(http.StatusTooManyRequests, CodeLimitExceeded, "Too many requests; try again in %d ms", ms).
		With("retry_after_ms", ms)
}
