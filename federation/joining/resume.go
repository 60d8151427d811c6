package joining

import (
	"context"
	"time"

	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// Joins that a restart interrupted are tried again for a day.
const (
	resumeEvery = 5 * time.Minute
	resumeFor   = 24 * time.Hour
)

// Run goes on with the joins that an earlier run of the server began, until ctx
// ends or there are none.
func (j *Joining) Run(ctx context.Context) {
	for {
		left, err := j.resume(ctx)
		if err != nil && ctx.Err() == nil {
			j.Log.ErrorContext(ctx, "joins that were interrupted could not be gone on with; they are tried again", "error", err)
		}
		if left == 0 && err == nil {
			return
		}
		wait := time.NewTimer(resumeEvery)
		select {
		case <-ctx.Done():
			wait.Stop()
			return
		case <-wait.C:
		}
	}
}

// resume tries every interrupted join once and counts those that are left.
func (j *Joining) resume(ctx context.Context) (left int, err error) {
	all, err := j.loadPending(ctx, j.begun)
	if err != nil {
		return 0, err
	}
	for _, p := range all {
		over, err := j.resumeOne(ctx, p)
		if err != nil {
			return 0, err
		}
		if !over {
			left++
		}
	}
	return left, nil
}

// resumeOne tells whether a join has come to an end: the user is in the room, or
// has been refused, or it has taken too long.
func (j *Joining) resumeOne(ctx context.Context, p pending) (over bool, err error) {
	release, err := j.turns.take(ctx, p.room)
	if err != nil {
		return false, err
	}
	defer release()
	wanted, err := j.stillWanted(ctx, p)
	if err != nil {
		return false, err
	}
	joined := false
	if wanted {
		failed := j.try(ctx, p)
		if err := ctx.Err(); err != nil {
			return false, err
		}
		tooLong := j.Now().Sub(p.started) > resumeFor
		if failed != nil && !failed.refused() && !tooLong {
			return false, nil
		}
		j.Log.InfoContext(ctx, "a join that was interrupted has come to an end", "user", p.user, "room", p.room, "failed", failed)
		joined = failed == nil
	}
	return true, j.dropPending(ctx, p.user, p.room, joined)
}

// stillWanted tells whether the user exists and is not in the room.
func (j *Joining) stillWanted(ctx context.Context, p pending) (bool, error) {
	exists, err := j.Users.Exists(ctx, p.user)
	if err != nil || !exists {
		return false, err
	}
	r, err := j.Engine.Room(ctx, p.room)
	if matrix.HasCode(err, matrix.CodeNotFound) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	return !r.IsLocalMember(p.user), nil
}
