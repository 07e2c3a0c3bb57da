package state

import (
	"fmt"

	"github.com/ncruces/go-sqlite3"
)

// Hash identifies a row among the results of a query.
type Hash [16]byte

// Hashes returns the rows kept for a query, with how many of each.
func (d *DB) Hashes(query string) (map[Hash]int64, error) {
	out := map[Hash]int64{}
	err := d.view(func(*Tx) error {
		return d.run(`SELECT hash, count FROM result WHERE query=?`, func(s *sqlite3.Stmt) error {
			var h Hash
			copy(h[:], s.ColumnRawBlob(0))
			out[h] = s.ColumnInt64(1)
			return nil
		}, query)
	})
	if err != nil {
		return nil, fmt.Errorf("read last results: %w", err)
	}
	return out, nil
}

// Row returns a row kept for a query, nil when there is none.
func (t *Tx) Row(query string, h Hash) (row []byte, err error) {
	err = t.d.run(`SELECT row FROM result WHERE query=? AND hash=?`, func(s *sqlite3.Stmt) error {
		row = s.ColumnBlob(0, nil)
		return nil
	}, query, h[:])
	return row, err
}

// SetRow keeps so many of a row; row may be nil when it is kept already.
func (t *Tx) SetRow(query string, h Hash, count int64, row []byte) error {
	var err error
	switch {
	case count <= 0:
		err = t.d.run(`DELETE FROM result WHERE query=? AND hash=?`, nil, query, h[:])
	case row == nil:
		err = t.d.run(`UPDATE result SET count=? WHERE query=? AND hash=?`, nil, count, query, h[:])
	default:
		err = t.d.run(`INSERT INTO result (query, hash, count, row) VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET count=excluded.count`, nil, query, h[:], count, row)
	}
	if err != nil {
		return fmt.Errorf("keep results: %w", err)
	}
	return nil
}

// ForgetRows removes all rows kept for a query.
func (t *Tx) ForgetRows(query string) error {
	if err := t.d.run(`DELETE FROM result WHERE query=?`, nil, query); err != nil {
		return fmt.Errorf("forget results: %w", err)
	}
	return nil
}
