package discovery

import (
	"context"
	"net/http"

	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// threepidRoutes answers for a server that can reach neither mail, telephones
// nor identity servers: nobody has a third-party identifier, and none can be
// added. A well-formed request is refused by what the specification has for it.
func threepidRoutes() []httpx.Route {
	const (
		v3      = "/_matrix/client/v3/"
		account = v3 + "account/3pid"
	)
	routes := []httpx.Route{
		httpx.JSON(http.MethodGet, account, getThreepids),
		httpx.JSON(http.MethodPost, account, addThreepidOld),
		httpx.JSON(http.MethodPost, account+"/add", addThreepid),
		httpx.JSON(http.MethodPost, account+"/bind", bindThreepid),
		httpx.JSON(http.MethodPost, account+"/delete", removeThreepid),
		httpx.JSON(http.MethodPost, account+"/unbind", removeThreepid),
	}
	for path, refusal := range map[string]*matrix.Error{
		account:                 errNoMedium,
		v3 + "account/password": errNoAccount,
		v3 + "register":         errDenied,
	} {
		routes = append(routes,
			httpx.JSON(http.MethodPost, path+"/email/requestToken", refuseEmail(refusal), httpx.NoAuth),
			httpx.JSON(http.MethodPost, path+"/msisdn/requestToken", refusePhone(refusal), httpx.NoAuth))
	}
	return routes
}

// What is said to who wants to add an address, to reset a password with one, or
// to register with one: each endpoint has its own word for "not with us".
var (
	errNoMedium = matrix.NewError(http.StatusBadRequest, matrix.CodeThreepidMediumUnsupp,
		"This server sends neither email nor text messages")
	errNoAccount = matrix.NewError(http.StatusBadRequest, matrix.CodeThreepidNotFound,
		"No account has this address; ask an administrator for a new password")
	errDenied = matrix.NewError(http.StatusForbidden, matrix.CodeThreepidDenied,
		"This server keeps no email addresses or telephone numbers")
)

type threepidsAnswer struct {
	Threepids []struct{} `json:"threepids"`
}

// spec: client-server#get_matrixclientv3account3pid
func getThreepids(context.Context, *httpx.Caller, *nothing) (*threepidsAnswer, error) {
	return &threepidsAnswer{Threepids: []struct{}{}}, nil
}

type session struct {
	Secret *string `json:"client_secret"`
	SID    *string `json:"sid"`
}

func (s *session) check() error {
	return needed("client_secret", s.Secret, "sid", s.SID)
}

type identityServer struct {
	Server *string `json:"id_server"`
	Token  *string `json:"id_access_token"`
}

func (i *identityServer) check() error {
	return needed("id_server", i.Server, "id_access_token", i.Token)
}

// needed refuses a request that lacks one of two members.
func needed(name1 string, v1 *string, name2 string, v2 *string) error {
	switch {
	case v1 == nil:
		return matrix.MissingParam("%q is missing", name1)
	case v2 == nil:
		return matrix.MissingParam("%q is missing", name2)
	}
	return nil
}

type oldCredentials struct {
	Credentials *struct {
		session
		identityServer
	} `json:"three_pid_creds"`
}

// spec: client-server#post_matrixclientv3account3pid
func addThreepidOld(_ context.Context, _ *httpx.Caller, q *oldCredentials) (*struct{}, error) {
	if q.Credentials == nil {
		return nil, matrix.MissingParam(`"three_pid_creds" is missing`)
	}
	if err := q.Credentials.session.check(); err != nil {
		return nil, err
	}
	if err := q.Credentials.identityServer.check(); err != nil {
		return nil, err
	}
	return nil, matrix.NewError(http.StatusForbidden, matrix.CodeThreepidAuthFailed, "This server trusts no identity server")
}

// spec: client-server#post_matrixclientv3account3pidadd
func addThreepid(_ context.Context, _ *httpx.Caller, q *session) (*struct{}, error) {
	if err := q.check(); err != nil {
		return nil, err
	}
	return nil, errDenied
}

type bindRequest struct {
	session
	identityServer
}

// spec: client-server#post_matrixclientv3account3pidbind
func bindThreepid(_ context.Context, _ *httpx.Caller, q *bindRequest) (*struct{}, error) {
	if err := q.session.check(); err != nil {
		return nil, err
	}
	if err := q.identityServer.check(); err != nil {
		return nil, err
	}
	return nil, errDenied
}

type removeRequest struct {
	Medium  *string `json:"medium"`
	Address *string `json:"address"`
}

type removeAnswer struct {
	Result string `json:"id_server_unbind_result"`
}

// Nothing is bound through this server, so that no identity server has to be
// told.
// spec: client-server#post_matrixclientv3account3piddelete
func removeThreepid(_ context.Context, _ *httpx.Caller, q *removeRequest) (*removeAnswer, error) {
	if err := needed("medium", q.Medium, "address", q.Address); err != nil {
		return nil, err
	}
	return &removeAnswer{Result: "no-support"}, nil
}

type attempt struct {
	Secret  *string `json:"client_secret"`
	Attempt *int64  `json:"send_attempt"`
}

func (a *attempt) check() error {
	switch {
	case a.Secret == nil:
		return matrix.MissingParam(`"client_secret" is missing`)
	case a.Attempt == nil:
		return matrix.MissingParam(`"send_attempt" is missing`)
	}
	return nil
}

type emailRequest struct {
	attempt
	Email *string `json:"email"`
}

// spec: client-server#post_matrixclientv3account3pidemailrequesttoken
func refuseEmail(refusal error) func(context.Context, *httpx.Caller, *emailRequest) (*struct{}, error) {
	return func(_ context.Context, _ *httpx.Caller, q *emailRequest) (*struct{}, error) {
		if err := q.attempt.check(); err != nil {
			return nil, err
		}
		if q.Email == nil {
			return nil, matrix.MissingParam(`"email" is missing`)
		}
		return nil, refusal
	}
}

type phoneRequest struct {
	attempt
	Country *string `json:"country"`
	Phone   *string `json:"phone_number"`
}

// spec: client-server#post_matrixclientv3account3pidmsisdnrequesttoken
func refusePhone(refusal error) func(context.Context, *httpx.Caller, *phoneRequest) (*struct{}, error) {
	return func(_ context.Context, _ *httpx.Caller, q *phoneRequest) (*struct{}, error) {
		if err := q.attempt.check(); err != nil {
			return nil, err
		}
		if err := needed("country", q.Country, "phone_number", q.Phone); err != nil {
			return nil, err
		}
		return nil, refusal
	}
}
