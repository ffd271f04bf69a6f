package delivery

import (
	"slices"
	"time"

	"postroad/delivery/smtpc"
)

// idleConn is a connection that waits for another message.
type idleConn struct {
	conn  *smtpc.Conn
	sent  int // messages
	kept  kept
	lane  *lane
	timer *time.Timer
}

// borrow returns a connection that waited for the lane's next message, or nil.
func (r *Runner) borrow(l *lane) *idleConn {
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(l.idle) > 0 {
		if c := l.idle[len(l.idle)-1]; r.wakes(c) {
			r.work.Done()
			return c
		}
		l.idle = l.idle[:len(l.idle)-1] // its time is up, and expire has it
	}
	return nil
}

// wakes ends the wait of a connection; false when its time is up. mu must be held.
func (r *Runner) wakes(c *idleConn) bool {
	if !c.timer.Stop() {
		return false
	}
	r.idle = slices.DeleteFunc(r.idle, func(x *idleConn) bool { return x == c })
	c.lane.idle = slices.DeleteFunc(c.lane.idle, func(x *idleConn) bool { return x == c })
	return true
}

// keep lets a connection wait for another message, or closes it. The caller is an attempt.
func (r *Runner) keep(l *lane, c *idleConn) {
	c.lane = l
	if !r.park(c) {
		c.conn.Close()
	}
}

func (r *Runner) park(c *idleConn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stopped || c.conn.Broken() || c.sent >= r.cfg.Limits.MessagesPerConnection || !r.makeRoom() {
		return false
	}
	r.work.Add(1) // until it is borrowed or closed
	c.timer = time.AfterFunc(r.cfg.Limits.Idle, func() { r.expire(c) })
	r.idle = append(r.idle, c)
	c.lane.idle = append(c.lane.idle, c)
	return true
}

// makeRoom closes the connection that has waited longest when as many wait as may. It is false when servers are slow to
// say goodbye. mu must be held.
func (r *Runner) makeRoom() bool {
	most := r.cfg.Limits.Attempts
	if len(r.idle) < most {
		return true
	}
	old := r.idle[0]
	if r.parting.Load() >= int64(most) || !r.wakes(old) {
		return false
	}
	r.forget(old.lane)
	r.parting.Add(1)
	go func() {
		defer r.work.Done()
		defer r.parting.Add(-1)
		old.conn.Close()
	}()
	return true
}

// expire closes a connection that waited in vain.
func (r *Runner) expire(c *idleConn) {
	defer r.work.Done()
	r.mu.Lock()
	r.idle = slices.DeleteFunc(r.idle, func(x *idleConn) bool { return x == c })
	c.lane.idle = slices.DeleteFunc(c.lane.idle, func(x *idleConn) bool { return x == c })
	r.forget(c.lane)
	r.mu.Unlock()
	c.conn.Close()
}
