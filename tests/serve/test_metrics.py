"""The text that Prometheus reads says what was counted."""

from evomerge.serve.metrics import Metrics


def test_counters_histograms_and_gauges_are_written_as_prometheus_reads_them() -> None:
    metrics = Metrics()
    metrics.requests.add(1, "/v1/models", "200")
    metrics.requests.add(2, "/v1/models", "200")
    for seconds in (0.005, 0.3, 500):
        metrics.seconds.observe(seconds, "/p")
    metrics.usd.add(0.000001, 'a"b\\c\nd')
    lines = metrics.text({"evomerge_requests_in_flight": 3}).splitlines()
    assert 'evomerge_requests_total{path="/v1/models",status="200"} 3' in lines
    assert "evomerge_requests_in_flight 3" in lines
    assert "evomerge_degraded_total 0" in lines
    assert 'evomerge_usd_total{member="a\\"b\\\\c\\nd"} 1e-06' in lines
    assert 'evomerge_request_seconds_bucket{path="/p",le="0.01"} 1' in lines
    assert 'evomerge_request_seconds_bucket{path="/p",le="0.5"} 2' in lines
    assert 'evomerge_request_seconds_bucket{path="/p",le="120.0"} 2' in lines
    assert 'evomerge_request_seconds_bucket{path="/p",le="+Inf"} 3' in lines
    assert 'evomerge_request_seconds_count{path="/p"} 3' in lines
    named = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert len(named) == len(set(named)) == 9
