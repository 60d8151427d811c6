package news

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"

	"maunium.net/go/mautrix"

	"github.com/teahouse-chat/teahouse/appservices/kit"
	"github.com/teahouse-chat/teahouse/appservices/news/feed"
)

// People are told of failures in a few fixed words. What a fetch failed with may name
// resolvers and addresses of the inner network, and strangers choose what is fetched:
// what must not be connected to is answered as what is not there. The log has the rest.

const statusProblem = "HTTP "

// problemOf is a failure as it is stored: the name of a text of the catalogue, behind
// "problem.", or the status that a server answered with.
func problemOf(why error) string {
	if status, ok := errors.AsType[*feed.StatusError](why); ok {
		return fmt.Sprint(statusProblem, status.Status)
	}
	if _, ok := errors.AsType[mautrix.HTTPError](why); ok || errors.Is(why, errAsk) {
		return "homeserver"
	}
	for _, p := range []struct {
		err  error
		text string
	}{
		{feed.ErrNoFeed, "nofeed"}, {feed.ErrNoList, "nolist"}, {feed.ErrAddress, "noaddress"}, {feed.ErrGone, statusProblem + "410"},
		{feed.ErrTooLarge, "large"}, {kit.ErrTooLarge, "large"}, {errStore, "ours"},
	} {
		if errors.Is(why, p.err) {
			return p.text
		}
	}
	if _, ok := errors.AsType[*net.DNSError](why); ok { // which may be a timeout, too
		return "unreachable"
	}
	timeout, ok := errors.AsType[net.Error](why)
	_, untrusted := errors.AsType[*tls.CertificateVerificationError](why)
	_, broken := errors.AsType[tls.RecordHeaderError](why)
	_, alert := errors.AsType[tls.AlertError](why)
	switch {
	case ok && timeout.Timeout() || errors.Is(why, context.DeadlineExceeded):
		return "slow"
	case untrusted || broken || alert || strings.Contains(why.Error(), "server gave HTTP response to HTTPS client"):
		return "insecure"
	}
	return "unreachable"
}

// inWords is a stored failure in a language.
func inWords(language, problem string) string {
	if strings.HasPrefix(problem, statusProblem) {
		return problem
	}
	if _, ok := catalogue["problem."+problem]; !ok { // older versions stored what the error said
		problem = "unreachable"
	}
	return say(language, "problem."+problem)
}

// trouble is a failure in the words of who gave the command.
func (n *News) trouble(j *job, why error) string {
	n.log.Info("a command failed", "command", j.kind, "argument", j.argument, "error", why)
	return inWords(j.language, problemOf(why))
}
