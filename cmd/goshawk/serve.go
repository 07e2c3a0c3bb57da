package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/goshawk-project/goshawk/internal/agent"
	"github.com/goshawk-project/goshawk/internal/ctl"
	"github.com/goshawk-project/goshawk/internal/event"
	"github.com/goshawk-project/goshawk/internal/schema"
	"github.com/goshawk-project/goshawk/internal/sql"
	"github.com/goshawk-project/goshawk/internal/store"
	"github.com/goshawk-project/goshawk/internal/table"
)

// answers is what the agent's socket serves: queries and the agent's status.
type answers struct {
	agent  *agent.Agent
	store  *store.Store
	memory *memory
	engine *sql.Engine
	server *ctl.Server
	tables []schema.Relation
}

// serve opens the socket of a running agent, whose tables are told env.
func serve(path string, env *table.Env, a *agent.Agent, s *store.Store, m *memory) (*answers, error) {
	h := &answers{agent: a, store: s, memory: m}
	var err error
	h.tables = relations(env, h.self, s)
	if h.engine, err = sql.Open(h.tables, sql.Options{}); err != nil {
		return nil, err
	}
	if h.server, err = ctl.Listen(path, h, ctl.Options{}); err != nil {
		return nil, errors.Join(err, h.engine.Close())
	}
	return h, nil
}

// sync waits until what has happened is in the store.
func (h *answers) sync(ctx context.Context) error {
	if err := h.agent.Sync(ctx); err != nil && !errors.Is(err, agent.ErrStopped) {
		return err
	}
	return nil
}

// close ends all queries.
func (h *answers) close() error { return errors.Join(h.server.Close(), h.engine.Close()) }

// Query implements ctl.Handler. What happened before the question is part of the answer.
func (h *answers) Query(ctx context.Context, text string, r sql.Receiver) error {
	if err := h.agent.Sync(ctx); err != nil && ctx.Err() == nil && !errors.Is(err, agent.ErrStopped) {
		r.Warning(fmt.Sprintf("the newest events are missing: %v", err))
	}
	h.memory.add(1)
	defer h.memory.add(-1)
	return h.engine.Query(ctx, text, r)
}

// self is the agent as its tables show it.
func (h *answers) self(ctx context.Context) (table.SelfStatus, error) {
	st, err := h.agent.Status(ctx)
	if err != nil {
		return table.SelfStatus{}, err
	}
	out := table.SelfStatus{Hooks: st.Hooks, Counts: st.Counts}
	for _, s := range st.Sources {
		out.Sources = append(out.Sources, table.SelfSource{Name: s.Name, Active: s.Active, Error: s.Error})
	}
	return out, nil
}

// statusText is the agent's status as JSON.
type statusText struct {
	PID       int               `json:"pid"`
	Version   string            `json:"version"`
	Started   time.Time         `json:"started"`
	Events    map[string]uint64 `json:"events"`
	Sources   []sourceText      `json:"sources"`
	Hooks     []hookText        `json:"hooks"`
	Counts    []countText       `json:"counts"`
	Processes int               `json:"processes"`
	Store     storeText         `json:"store"`
	CPU       float64           `json:"cpu_seconds"`
	Peak      uint64            `json:"peak_memory_bytes"`
}

type sourceText struct {
	Name   string `json:"name"`
	Active bool   `json:"active"`
	Error  string `json:"error,omitempty"`
}

type countText struct {
	Source string `json:"source"`
	Kind   string `json:"kind,omitempty"`
	What   string `json:"what"`
	Reason string `json:"reason,omitempty"`
	Count  uint64 `json:"count"`
}

type storeText struct {
	LastEID int64  `json:"last_eid"`
	Pending int    `json:"pending_bytes"`
	Bytes   int64  `json:"bytes"`
	Error   string `json:"error,omitempty"`
}

// Status implements ctl.Handler.
func (h *answers) Status(ctx context.Context) ([]byte, error) {
	st, err := h.agent.Status(ctx)
	if err != nil {
		return nil, err
	}
	kept := h.store.Stats()
	out := statusText{
		PID: os.Getpid(), Version: version, Started: st.Begun, Events: make(map[string]uint64),
		Processes: st.Processes, CPU: st.Usage.CPU.Seconds(), Peak: st.Usage.Peak,
		Store: storeText{LastEID: kept.LastEID, Pending: kept.Pending, Bytes: kept.Bytes},
	}
	if kept.Err != nil {
		out.Store.Error = kept.Err.Error()
	}
	for _, k := range st.Events {
		out.Events[k.Kind.String()] = k.N
	}
	for _, s := range st.Sources {
		out.Sources = append(out.Sources, sourceText(s))
	}
	for i := range st.Hooks {
		out.Hooks = append(out.Hooks, textOf(&st.Hooks[i]))
	}
	for _, c := range st.Counts {
		text := countText{Source: c.Source, What: c.What, Reason: c.Reason, Count: c.N}
		if c.Kind != 0 {
			text.Kind = c.Kind.String()
		}
		out.Counts = append(out.Counts, text)
	}
	return json.Marshal(out)
}

func textOf(h *event.Hook) hookText {
	text := hookText{Source: h.Source, Name: h.Name, Tier: h.Tier, Best: h.Best, Refused: h.Refused, Silent: h.Silent}
	for _, k := range h.Kinds {
		text.Kinds = append(text.Kinds, k.String())
	}
	return text
}
