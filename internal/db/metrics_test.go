package db_test

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/db/dbtest"
)

func TestMetrics(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	d, err := db.Open(t.Context(), dbtest.URL(t, "sqlite"), db.Options{Metrics: reg})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	mustPut(t, d, ignoreThing, 1, "x")
	mustPut(t, d, ignoreThing, 2, "y")
	if err := d.Write(t.Context(), func(*db.Tx) error { return errRefused }); err == nil {
		t.Error("no error")
	}
	got := map[string]float64{}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		m := f.GetMetric()[0]
		got[f.GetName()] = m.GetCounter().GetValue() + m.GetGauge().GetValue() + m.GetHistogram().GetSampleSum()
	}
	if got["teahouse_db_batch_operations"] != 3 || got["teahouse_db_failed_operations_total"] != 1 ||
		got["teahouse_db_queued_operations"] != 0 || got["teahouse_db_write_seconds"] <= 0 || got["teahouse_db_batch_seconds"] <= 0 {
		t.Error(got)
	}
	if _, err := db.Open(t.Context(), dbtest.URL(t, "sqlite"), db.Options{Metrics: reg}); err == nil {
		t.Error("two databases count into the same metrics")
	}
}
