use super::*;
use std::process::Command;

fn objectives() -> Vec<Objective> {
    vec![Objective {
        check: "the \"shop\"".to_owned(),
        availability: Some(0.999),
        latency: Some(Latency { share: 0.95, within: Duration::from_millis(300) }),
        window: 30 * DAY,
    }]
}

/// A promtool test of the rules: `series` are its input, at one-minute steps.
fn judged(series: &str, at: &str, alerts: &str) {
    let Some(promtool) = std::env::var_os("PEGEL_PROMTOOL") else {
        eprintln!("SKIPPED: no promtool (PEGEL_PROMTOOL)");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("slo.yaml"), rule_file(&objectives())).unwrap();
    let test = format!(
        "rule_files: [slo.yaml]\nevaluation_interval: 1m\ntests:\n- interval: 1m\n  input_series:\n{series}  \
         alert_rule_test:\n  - eval_time: {at}\n    alertname: PegelErrorBudgetBurnsFast\n    exp_alerts: {alerts}\n"
    );
    std::fs::write(dir.path().join("test.yaml"), test).unwrap();
    for arguments in [["check", "rules", "slo.yaml"], ["test", "rules", "test.yaml"]] {
        let run = Command::new(&promtool).args(arguments).current_dir(dir.path()).output().unwrap();
        let said = String::from_utf8_lossy(&run.stdout) + String::from_utf8_lossy(&run.stderr);
        assert!(run.status.success(), "{said}\n{}", rule_file(&objectives()));
    }
}

/// A check's series: `success` and `maintenance` in promtool's notation, always answered within 0.1 s.
fn series(success: &str, maintenance: &str) -> String {
    let labels =
        r#"{job="blackbox-exporter",check="the \"shop\"",instance="https://a/",tenant="acme",node="n"}"#;
    [
        ("probe_success", success),
        ("pegel_probe_maintenance", maintenance),
        ("probe_duration_seconds", "0.1x500"),
    ]
    .map(|(name, values)| format!("  - series: '{name}{labels}'\n    values: '{values}'\n"))
    .concat()
}

#[test]
fn a_check_that_fails_every_tenth_time_pages_somebody() {
    // A tenth is a hundred times what the objective allows; the 14.4-fold of an hour is passed after nine minutes.
    let tenth = "1 1 1 1 1 1 1 1 1 0 ".repeat(12);
    let expected = r#"
    - exp_labels: {severity: critical, instance: 'https://a/', tenant: acme, slo: 'the "shop"', sli: availability}
      exp_annotations:
        summary: 'the "shop": the availability budget of https://a/ burns too fast'
        description: '10% of the runs of check the "shop" against https://a/ fail (over 1h and 5m, or 6h and 30m); the objective allows 0.1 %. See `pegel status` and the check''s last error.'"#;
    judged(&series(&tenth, "0x500"), "119m", expected);
}

#[test]
fn a_check_that_works_pages_nobody() {
    judged(&series("1x300", "0x500"), "119m", "[]");
}

#[test]
fn what_fails_in_a_maintenance_window_costs_no_budget() {
    judged(&series("1x60 0x59 1x60", "0x59 1x61 0x60"), "119m", "[]");
}

#[test]
fn objectives_that_nothing_could_miss_so_fast_have_no_such_alert() {
    let lax = Objective { availability: Some(0.2), latency: None, ..objectives().remove(0) };
    assert!(!rule_file(&[lax]).contains("alert: PegelErrorBudgetBurnsFast"));
    assert!(rule_file(&objectives()).contains("alert: PegelErrorBudgetBurnsFast"));
}

#[test]
fn windows_are_written_as_promql_has_them() {
    let all = [30 * DAY, 72 * HOUR, HOUR, Duration::from_mins(5), Duration::from_secs(90)];
    assert_eq!(all.map(words), ["30d", "3d", "1h", "5m", "90s"]);
}
