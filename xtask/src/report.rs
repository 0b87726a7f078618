//! The reports of the conformance suites and of tests that did not run, and the table that ends a run.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde::Deserialize;

use crate::counts::Counts;
use crate::failure::{Doing, Failure, Outcome};
use crate::{testbed, workspace};

/// Folder for the reports of a `cargo xtask test`, given to the suites in `RUNTIDE_REPORT_DIR`: `<backend>.jsonl`.
pub(crate) const FOLDER: &str = "conformance";

/// Folder in it for the reports of tests that failed and ran again.
pub(crate) const AGAIN: &str = "again";

/// Result of one law on one backend, or of a test without a law (`law` is empty): a line of a report.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Finding {
    pub(crate) suite: String,
    pub(crate) backend: String,
    /// Against the real daemon.
    pub(crate) real: bool,
    pub(crate) law: String,
    pub(crate) name: String,
    pub(crate) outcome: Verdict,
    pub(crate) reason: Option<String>,
    /// Version of the daemon, if there is one.
    pub(crate) version: Option<String>,
}

/// In rising order of precedence, for a law that was tried more than once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verdict {
    Passed,
    Skipped,
    Failed,
}

/// Reads every report of a run; a line that does not read is an error: it may have said `failed`. Of a law that failed and ran again, the
/// later finding counts.
pub(crate) fn read(folder: &Path) -> Outcome<Vec<Finding>> {
    Ok(settled(read_in(folder)?, read_in(&folder.join(AGAIN))?))
}

fn read_in(folder: &Path) -> Outcome<Vec<Finding>> {
    let Ok(entries) = fs::read_dir(folder) else { return Ok(Vec::new()) };
    let mut files: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "jsonl"));
    files.sort();
    let mut findings = Vec::new();
    for file in files {
        let shown = workspace::relative(&file);
        let text = fs::read_to_string(&file).doing(format_args!("cannot read {shown}"))?;
        findings.extend(parse(&text).map_err(|(line, why)| Failure::failed(format_args!("{shown}:{line}: {why}")))?);
    }
    Ok(findings)
}

fn settled(mut first: Vec<Finding>, again: Vec<Finding>) -> Vec<Finding> {
    let key = |finding: &Finding| {
        let Finding { suite, backend, law, name, real, .. } = finding;
        (suite.clone(), backend.clone(), law.clone(), name.clone(), *real)
    };
    let keys: BTreeSet<_> = again.iter().map(key).collect();
    first.retain(|finding| finding.outcome != Verdict::Failed || !keys.contains(&key(finding)));
    first.extend(again);
    first
}

fn parse(text: &str) -> Result<Vec<Finding>, (usize, serde_json::Error)> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines.map(|(at, line)| serde_json::from_str(line).map_err(|error| (at + 1, error))).collect()
}

/// The table of the suites that ran, one row for each suite of each backend, then each skip with its reason.
pub(crate) fn table(findings: &[Finding]) -> String {
    let mut suites: BTreeMap<(&str, &str, bool), Vec<&Finding>> = BTreeMap::new();
    for finding in findings {
        suites.entry((&finding.backend, &finding.suite, finding.real)).or_default().push(finding);
    }
    let mut rows = vec![["backend", "suite", "ran", "passed", "failed", "skipped"].map(str::to_owned)];
    for ((backend, suite, real), findings) in &suites {
        let counts = count(findings.iter().copied());
        let version = findings.iter().find_map(|finding| finding.version.as_deref());
        let ran = match (real, version) {
            _ if counts.passed + counts.failed == 0 => "not".to_owned(),
            (true, Some(version)) => format!("for real, {version}"),
            (true, None) => "for real".to_owned(),
            (false, _) if testbed::KNOWN.contains(backend) => "not for real".to_owned(),
            (false, _) => "in process".to_owned(),
        };
        let number = |number: u64| number.to_string();
        let (passed, failed, skipped) = (number(counts.passed), number(counts.failed), number(counts.skipped));
        rows.push([(*backend).to_owned(), (*suite).to_owned(), ran, passed, failed, skipped]);
    }
    let mut text = aligned(&rows);
    for verdict in [Verdict::Failed, Verdict::Skipped, Verdict::Passed] {
        text.push_str(&reasons(findings, verdict));
    }
    text
}

fn reasons(findings: &[Finding], verdict: Verdict) -> String {
    let title = match verdict {
        Verdict::Passed => "passed in part",
        Verdict::Skipped => "skipped",
        Verdict::Failed => "failed",
    };
    // Many laws may share a reason, above all that there is no daemon.
    let mut laws: BTreeMap<(&str, &str), Vec<&Finding>> = BTreeMap::new();
    for finding in findings.iter().filter(|finding| finding.outcome == verdict) {
        let reason = finding.reason.as_deref();
        if let Some(reason) = reason.or_else(|| (verdict != Verdict::Passed).then_some("no reason given")) {
            laws.entry((&finding.backend, reason)).or_default().push(finding);
        }
    }
    let mut text = String::new();
    for ((backend, reason), mut found) in laws {
        found.sort_by_key(|finding| order(&finding.law));
        let names: Vec<_> =
            found.iter().map(|finding| format!("{} {}", finding.law, finding.name).trim_start().to_owned()).collect();
        let first = reason.lines().next().unwrap_or_default();
        let _ = writeln!(text, "  {title} on {backend}: {}: {first}", names.join(", "));
    }
    if text.is_empty() { text } else { format!("\n{text}") }
}

pub(crate) fn count<'a>(findings: impl IntoIterator<Item = &'a Finding>) -> Counts {
    let mut counts = Counts::default();
    for finding in findings {
        match finding.outcome {
            Verdict::Passed => counts.passed += 1,
            Verdict::Failed => counts.failed += 1,
            Verdict::Skipped => counts.skipped += 1,
        }
    }
    counts
}

/// The required daemons that no suite ran against, one line each.
pub(crate) fn unproven(required: &[String], findings: &[Finding]) -> Vec<String> {
    let mut lines = Vec::new();
    for backend in required {
        let of_it: Vec<_> = findings.iter().filter(|finding| finding.backend == *backend).collect();
        let suites: BTreeSet<_> = of_it.iter().map(|finding| finding.suite.as_str()).collect();
        if suites.is_empty() {
            lines.push(format!("{backend}: required for real, and no suite ran"));
        }
        for suite in suites {
            let ran = |finding: &&Finding| finding.real && finding.outcome != Verdict::Skipped;
            if !of_it.iter().copied().filter(|finding| finding.suite == suite).any(|finding| ran(&finding)) {
                lines.push(format!("{backend}: required for real, and its {suite} suite did not run for real"));
            }
        }
    }
    lines
}

/// Laws in the order of the book: R, M, S, W, each by number.
pub(crate) fn order(law: &str) -> (usize, u32, String) {
    let (letter, number) = law.split_at(law.find(|c: char| c.is_ascii_digit()).unwrap_or(law.len()));
    let series = ["R", "M", "S", "W"].iter().position(|known| *known == letter).unwrap_or(usize::MAX);
    (series, number.parse().unwrap_or(u32::MAX), law.to_owned())
}

/// Columns side by side, numbers to the right.
pub(crate) fn aligned<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..N).map(|column| width(column).unwrap_or(0)).collect();
    let is_number = |column: usize| {
        let mut cells = rows.iter().skip(1).filter_map(|row| row.get(column)).peekable();
        cells.peek().is_some() && cells.all(|cell| cell.parse::<u64>().is_ok())
    };
    let numbers: Vec<bool> = (0..N).map(is_number).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for ((cell, width), number) in row.iter().zip(&widths).zip(&numbers) {
            let _ = if *number { write!(line, "{cell:>width$}  ") } else { write!(line, "{cell:<width$}  ") };
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) const REPORT: &str = r#"
{"suite":"runtime","backend":"docker","real":true,"law":"R10","name":"dead link","outcome":"skipped","reason":"no half-open","millis":0,"version":"20.10.24"}
{"suite":"runtime","backend":"docker","real":true,"law":"R1","name":"bracket","outcome":"passed","reason":null,"millis":123,"version":"20.10.24"}
{"suite":"runtime","backend":"memory","real":false,"law":"R1","name":"bracket","outcome":"passed","reason":null,"millis":1,"version":null}
{"suite":"runtime","backend":"memory","real":false,"law":"R10","name":"dead link","outcome":"failed","reason":"found after 3 s\nnot 2","millis":1,"version":null}
"#;

    pub(crate) fn findings() -> Vec<Finding> {
        parse(REPORT).unwrap()
    }

    #[test]
    fn the_table_lists_runs_and_reasons_of_skips() {
        let expected = "\
backend  suite    ran                 passed  failed  skipped
docker   runtime  for real, 20.10.24       1       0        1
memory   runtime  in process               1       1        0

  failed on memory: R10 dead link: found after 3 s

  skipped on docker: R10 dead link: no half-open
";
        assert_eq!(table(&findings()), expected);
    }

    #[test]
    fn a_test_without_a_law_is_counted_and_named_when_it_did_not_run() {
        let line = r#"{"suite":"churn","backend":"docker","real":false,"law":"","name":"a churn","outcome":"skipped","reason":"no daemon","millis":0,"version":null}"#;
        let table = table(&parse(line).unwrap());
        assert!(table.contains("docker   churn  not       0       0        1"), "{table}");
        assert!(table.ends_with("\n  skipped on docker: a churn: no daemon\n"), "{table}");
    }

    #[test]
    fn a_law_that_held_only_in_part_says_so() {
        let mut findings = findings();
        findings[1].reason = Some("without: health".to_owned());
        assert!(table(&findings).ends_with("\n  passed in part on docker: R1 bracket: without: health\n"));
    }

    #[test]
    fn a_suite_that_only_skips_did_not_run() {
        let mut findings = findings();
        findings.retain(|finding| finding.outcome == Verdict::Skipped);
        findings[0].real = false;
        assert!(table(&findings).contains("docker   runtime  not       0       0        1"));
        assert_eq!(unproven(&["docker".to_owned()], &findings).len(), 1);
    }

    #[test]
    fn a_required_daemon_must_have_been_met_by_every_suite() {
        let required = ["docker".to_owned()];
        assert!(unproven(&required, &findings()).is_empty());
        assert_eq!(unproven(&required, &[]), ["docker: required for real, and no suite ran"]);
        let mut more = findings();
        let mut store = more[1].clone();
        store.suite = "store".to_owned();
        store.real = false;
        more.push(store);
        assert_eq!(unproven(&required, &more), ["docker: required for real, and its store suite did not run for real"]);
        assert_eq!(unproven(&["memory".to_owned()], &more).len(), 1, "in process is not for real");
    }

    #[test]
    fn a_law_that_ran_again_counts_once() {
        let first = findings();
        let mut again = vec![first[3].clone(), first[2].clone()];
        again[0].outcome = Verdict::Passed;
        again[1].outcome = Verdict::Failed;
        let counted = count(&settled(first.clone(), again));
        assert_eq!(counted, Counts { passed: 3, failed: 1, skipped: 1 }, "a failure is replaced, nothing else is");
        assert_eq!(count(&settled(first, Vec::new())), Counts { passed: 2, failed: 1, skipped: 1 });
    }

    #[test]
    fn a_torn_line_is_an_error_with_its_number() {
        let (line, _) = parse("\n{\"suite\":\"runtime\"").unwrap_err();
        assert_eq!(line, 2);
    }

    #[test]
    fn laws_stand_in_the_order_of_the_book() {
        let mut laws = ["W1", "M2", "R10", "R9", "X1", "S1"];
        laws.sort_by_key(|law| order(law));
        assert_eq!(laws, ["R9", "R10", "M2", "S1", "W1", "X1"]);
    }
}
