package rule

import (
	"cmp"
	"slices"
)

// form is where in a value a literal has to stand.
type form uint8

const (
	anywhere form = iota
	atStart
	atEnd
	whole
)

// literal is a text that an automaton looks for, without regard to the case of ASCII letters.
type literal struct {
	text string // in lower case
	form form
	id   int32
}

// automaton finds many literals in one pass over a value (Aho and Corasick, Efficient string
// matching, 1975). The states near the root, where nearly all time is spent, have a row each
// of all that can follow; the others a sorted list, and a state to fall back to.
type automaton struct {
	class   [256]uint8 // bytes that no literal tells apart share one
	classes uint32
	dense   []uint32 // dense[state*classes+class]: the next state
	rows    uint32   // states that have a row
	edges   [][]edge // of state rows+i
	fail    []uint32
	found   [][]literalEnd // what ends in each state
	ends    []bool         // whether anything does
}

type edge struct {
	class uint8
	to    uint32
}

type literalEnd struct {
	length int32
	id     int32
	form   form
}

// maxDense bounds the entries of rows: 4 MB an automaton.
const maxDense = 1 << 20

func newAutomaton(literals []literal) *automaton {
	a := &automaton{classes: 1}
	var used [256]bool
	for _, l := range literals {
		for i := range len(l.text) {
			used[l.text[i]] = true
		}
	}
	for b := range 256 {
		if used[b] {
			if a.classes == 256 { // all bytes are told apart but one, which shares the last
				a.class[b] = 255
				continue
			}
			a.class[b] = uint8(a.classes)
			a.classes++
		}
	}
	for b := 'A'; b <= 'Z'; b++ {
		a.class[b] = a.class[b+'a'-'A']
	}

	type node struct {
		next  map[uint8]uint32
		fail  uint32
		ends  []literalEnd
		order uint32
	}
	trie := []node{{}}
	for _, l := range literals {
		at := uint32(0)
		for i := range len(l.text) {
			c := a.class[l.text[i]]
			to, ok := trie[at].next[c]
			if !ok {
				to = uint32(len(trie))
				trie = append(trie, node{})
				if trie[at].next == nil {
					trie[at].next = make(map[uint8]uint32, 1)
				}
				trie[at].next[c] = to
			}
			at = to
		}
		trie[at].ends = append(trie[at].ends, literalEnd{int32(len(l.text)), l.id, l.form})
	}
	// Breadth first: states get their numbers by depth, and each knows its parent's fallback.
	queue := make([]uint32, 1, len(trie))
	for i := 0; i < len(queue); i++ {
		at := queue[i]
		trie[at].order = uint32(i)
		classes := make([]uint8, 0, len(trie[at].next))
		for c := range trie[at].next {
			classes = append(classes, c)
		}
		slices.Sort(classes)
		for _, c := range classes {
			to := trie[at].next[c]
			queue = append(queue, to)
			if at == 0 {
				continue
			}
			f := trie[at].fail
			for {
				if n, ok := trie[f].next[c]; ok {
					trie[to].fail = n
					break
				}
				if f == 0 {
					break
				}
				f = trie[f].fail
			}
			trie[to].ends = append(trie[to].ends, trie[trie[to].fail].ends...)
		}
	}
	states := uint32(len(trie))
	a.rows = min(states, max(1, maxDense/a.classes))
	a.dense = make([]uint32, a.rows*a.classes)
	a.edges = make([][]edge, states-a.rows)
	a.fail = make([]uint32, states)
	a.found = make([][]literalEnd, states)
	a.ends = make([]bool, states)
	for i, at := range queue {
		n := &trie[at]
		a.fail[i] = trie[n.fail].order
		a.found[i] = n.ends
		a.ends[i] = len(n.ends) > 0
		if uint32(i) < a.rows {
			row := a.dense[uint32(i)*a.classes:][:a.classes]
			if i > 0 { // a fallback is nearer to the root, so that its row is whole
				copy(row, a.dense[a.fail[i]*a.classes:][:a.classes])
			}
			for c, to := range n.next {
				row[c] = trie[to].order
			}
			continue
		}
		list := make([]edge, 0, len(n.next))
		for c, to := range n.next {
			list = append(list, edge{c, trie[to].order})
		}
		slices.SortFunc(list, func(x, y edge) int { return cmp.Compare(x.class, y.class) })
		a.edges[uint32(i)-a.rows] = list
	}
	return a
}

// step is the state after a class, of a state that has no row.
func (a *automaton) step(state uint32, class uint8) uint32 {
	for state >= a.rows {
		for _, e := range a.edges[state-a.rows] {
			if e.class == class {
				return e.to
			}
		}
		state = a.fail[state]
	}
	return a.dense[state*a.classes+uint32(class)]
}

// scan calls hit for every literal in value.
func (a *automaton) scan(value string, hit func(id int32)) {
	state := uint32(0)
	for i := 0; i < len(value); i++ {
		c := a.class[value[i]]
		if state < a.rows {
			state = a.dense[state*a.classes+uint32(c)]
		} else {
			state = a.step(state, c)
		}
		if !a.ends[state] {
			continue
		}
		for _, l := range a.found[state] {
			start, end := i+1 == int(l.length), i+1 == len(value)
			if l.form == anywhere || l.form == atStart && start || l.form == atEnd && end || start && end {
				hit(l.id)
			}
		}
	}
}
