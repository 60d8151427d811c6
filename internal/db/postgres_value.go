package db

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
)

// decodePostgres turns a column into what SQLite's driver would give: nil,
// int64, float64, string or []byte; bool, which SQLite lacks, is assigned alike.
func decodePostgres(oid uint32, format int16, raw []byte) (any, error) {
	if raw == nil {
		return nil, nil
	}
	if format == pgx.TextFormatCode {
		switch oid {
		case pgtype.TextOID, pgtype.VarcharOID, pgtype.NameOID, pgtype.UnknownOID:
			return string(raw), nil
		}
		return nil, fmt.Errorf("the type with oid %d is not supported", oid)
	}
	switch oid {
	case pgtype.Int8OID:
		return int64(binary.BigEndian.Uint64(raw)), nil
	case pgtype.Int4OID:
		return int64(int32(binary.BigEndian.Uint32(raw))), nil
	case pgtype.Int2OID:
		return int64(int16(binary.BigEndian.Uint16(raw))), nil
	case pgtype.TextOID, pgtype.VarcharOID, pgtype.NameOID, pgtype.UnknownOID:
		return string(raw), nil
	case pgtype.ByteaOID:
		return bytes.Clone(raw), nil
	case pgtype.BoolOID:
		return raw[0] != 0, nil
	case pgtype.Float8OID:
		return math.Float64frombits(binary.BigEndian.Uint64(raw)), nil
	case pgtype.Float4OID:
		return float64(math.Float32frombits(binary.BigEndian.Uint32(raw))), nil
	case pgtype.NumericOID:
		return decodeNumeric(raw)
	}
	return nil, fmt.Errorf("the type with oid %d is not supported", oid)
}

// decodeNumeric is for sums: PostgreSQL adds BIGINTs up to a numeric.
func decodeNumeric(raw []byte) (any, error) {
	var n pgtype.Numeric
	if err := pgtype.NewMap().Scan(pgtype.NumericOID, pgx.BinaryFormatCode, raw, &n); err != nil {
		return nil, err
	}
	if i, err := n.Int64Value(); err == nil {
		return i.Int64, nil
	}
	f, err := n.Float64Value()
	return f.Float64, err
}
