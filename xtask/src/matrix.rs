//! `cargo xtask support-matrix`: the laws that hold on each backend, as a page of the book.
//!
//! The laws of the log are not in it: there is one log for all backends. A run's last table has them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;

use crate::failure::{Doing, Failure, Outcome};
use crate::report::{self, Finding, Verdict};
use crate::terminal::{complain, say};
use crate::{testbed, workspace};

const PAGE: &str = "docs/support-matrix.md";

/// The cell of a law that was not tried.
const NOT_RUN: &str = "not run";

/// The suites of a backend's laws: each with the name of its columns, and the text before its table.
const SUITES: [(&str, &str, &str); 2] = [
    ("runtime", "backend", ""),
    ("store", "store", "\n## Stores\n\nThe laws S1 to S12, on whatever holds declared resources.\n\n"),
];

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Write nothing; fail if the page differs from the last run
    #[arg(long)]
    check: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Outcome<()> {
    let findings = report::read(&workspace::target(report::FOLDER))?;
    if findings.is_empty() {
        return Err(Failure::refused("there are no reports: run `cargo xtask test` first"));
    }
    if arguments.check { check(&findings) } else { write(&findings) }
}

/// Writes the page again.
pub(crate) fn write(findings: &[Finding]) -> Outcome<()> {
    let path = workspace::root().join(PAGE);
    let page = render(findings);
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).doing("cannot make docs")?;
    }
    fs::write(&path, page).doing(format_args!("cannot write {PAGE}"))?;
    say!("{PAGE}: written");
    Ok(())
}

fn check(findings: &[Finding]) -> Outcome<()> {
    let committed = fs::read_to_string(workspace::root().join(PAGE)).doing(format_args!("cannot read {PAGE}"))?;
    let mut found = results(&render(findings));
    let mut committed = results(&committed);
    for daemon in testbed::LATER.into_iter().chain(testbed::BUILT) {
        if !found.iter().any(|((_, backend), said)| backend == daemon && said != NOT_RUN) {
            committed.retain(|(_, backend), _| backend != daemon);
            found.retain(|(_, backend), _| backend != daemon);
            say!("{PAGE}: {daemon} is not compared: `cargo xtask test --matrix` runs it");
        }
    }
    let differences = differences(&committed, &found);
    if differences.is_empty() {
        say!("{PAGE}: agrees with the last run");
        return Ok(());
    }
    for line in &differences {
        complain!("  {line}");
    }
    let number = differences.len();
    Err(Failure::failed(format_args!("{PAGE}: {number} results differ: cargo xtask support-matrix writes it again")))
}

/// The page; the same findings give the same bytes, in any order.
fn render(findings: &[Finding]) -> String {
    let mut page = String::from(
        "# Support matrix\n\nWhich of the laws hold on which backend, as the conformance suite last found. Generated: do \
         not edit, but run\n\n```sh\ncargo xtask test --matrix\n```\n\n",
    );
    let mut notes: Vec<String> = Vec::new();
    for (suite, what, heading) in SUITES {
        let of_it: Vec<&Finding> = findings.iter().filter(|finding| finding.suite == suite).collect();
        if !of_it.is_empty() {
            page.push_str(heading);
            tables(&of_it, what, &mut page, &mut notes);
        }
    }
    for (at, note) in notes.iter().enumerate() {
        let _ = write!(page, "\n[^{}]: {note}\n", at + 1);
    }
    page
}

/// The tables of a suite: the daemon of each backend, and the results of its laws.
fn tables(findings: &[&Finding], what: &str, page: &mut String, notes: &mut Vec<String>) {
    let backends: BTreeSet<&str> = findings.iter().map(|finding| finding.backend.as_str()).collect();
    let mut laws: BTreeMap<_, (&Finding, BTreeMap<&str, &Finding>)> = BTreeMap::new();
    for finding in findings.iter().copied() {
        let (_, row) = laws.entry(report::order(&finding.law)).or_insert_with(|| (finding, BTreeMap::new()));
        // Tried more than once: the graver result counts; of equals the first by reason, since the order of the lines is random.
        let weight = |finding: &Finding| (finding.outcome, std::cmp::Reverse(finding.reason.clone()));
        let cell = row.entry(&finding.backend).or_insert(finding);
        if weight(finding) > weight(cell) {
            *cell = finding;
        }
    }

    let mut ran = Vec::new();
    let _ = write!(page, "| {what} | ran against |\n|---|---|\n");
    for backend in &backends {
        let of_it: Vec<_> = findings.iter().copied().filter(|finding| finding.backend == *backend).collect();
        let against = against(&of_it);
        let _ = writeln!(page, "| {} | {} |", plain(backend), against.as_deref().unwrap_or("nothing: it was not run"));
        if against.is_some() {
            ran.push(*backend);
        }
    }

    let _ = writeln!(page, "\n| law |{}", backends.iter().fold(String::new(), |line, b| line + " " + &plain(b) + " |"));
    let _ = writeln!(page, "|---|{}", "---|".repeat(backends.len()));
    for (law, row) in laws.values() {
        let _ = write!(page, "| {} {} |", plain(&law.law), plain(&law.name));
        for backend in &backends {
            let cell = match row.get(backend).filter(|_| ran.contains(backend)) {
                None => NOT_RUN.to_owned(),
                Some(finding) => {
                    let (word, note) = said(finding);
                    let at = note.map(|note| {
                        notes.iter().position(|known| *known == note).unwrap_or_else(|| {
                            notes.push(note);
                            notes.len() - 1
                        })
                    });
                    at.map_or_else(|| word.to_owned(), |at| format!("{word} [^{}]", at + 1))
                }
            };
            let _ = write!(page, " {cell} |");
        }
        page.push('\n');
    }
}

/// A cell's word, and its footnote: why a law was skipped, or which parts of it the runtime does not have.
fn said(finding: &Finding) -> (&'static str, Option<String>) {
    let reason = finding.reason.as_deref().map(plain);
    match finding.outcome {
        Verdict::Passed => ("passed", reason),
        Verdict::Skipped => ("skipped", Some(reason.unwrap_or_else(|| "no reason given".to_owned()))),
        // The reason is in the test's output, with its context.
        Verdict::Failed => ("**failed**", None),
    }
}

/// The daemon that a backend ran against; `None` if all its laws were skipped for want of a daemon.
fn against(findings: &[&Finding]) -> Option<String> {
    let ran: Vec<_> = findings.iter().filter(|finding| finding.real || finding.outcome != Verdict::Skipped).collect();
    let versions: BTreeSet<_> = ran.iter().filter_map(|finding| finding.version.as_deref()).collect();
    let versions = versions.into_iter().map(plain).collect::<Vec<_>>().join(", ");
    if ran.is_empty() {
        None
    } else if !ran.iter().any(|finding| finding.real) {
        Some("itself, in process".to_owned())
    } else if versions.is_empty() {
        Some("a real daemon".to_owned())
    } else {
        Some(format!("a real daemon, version {versions}"))
    }
}

/// Text that can stand in a cell, without details of the machine that it was found on.
fn plain(text: &str) -> String {
    let root = workspace::root().display().to_string();
    let text = text.replace(&root, ".");
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

/// The results in a page: (law, backend) → the text of its cell, a footnote by its text.
fn results(page: &str) -> BTreeMap<(String, String), String> {
    let notes: BTreeMap<&str, &str> =
        page.lines().filter_map(|line| line.strip_prefix("[^")?.split_once("]: ")).collect();
    let cells = |line: &str| -> Vec<String> {
        line.trim().trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect()
    };
    let mut results = BTreeMap::new();
    let mut lines = page.lines();
    while let Some(header) = lines.find(|line| line.starts_with("| law |")) {
        let backends: Vec<_> = cells(header).into_iter().skip(1).collect();
        for line in lines.by_ref().skip(1).take_while(|line| line.starts_with('|')) {
            let mut row = cells(line).into_iter();
            let Some(law) = row.next() else { continue };
            for (backend, cell) in backends.iter().zip(row) {
                let word_and_note =
                    cell.split_once(" [^").map(|(word, at)| (word, notes.get(at.trim_end_matches(']'))));
                let said = match word_and_note {
                    Some((word, Some(note))) => format!("{word}: {note}"),
                    _ => cell,
                };
                results.insert((law.clone(), backend.clone()), said);
            }
        }
    }
    results
}

fn differences(
    committed: &BTreeMap<(String, String), String>,
    found: &BTreeMap<(String, String), String>,
) -> Vec<String> {
    let keys: BTreeSet<_> = committed.keys().chain(found.keys()).collect();
    let differing = keys.into_iter().filter(|key| committed.get(*key) != found.get(*key));
    differing
        .map(|key| {
            let said = |of: &BTreeMap<_, String>| of.get(key).map_or("nothing", String::as_str).to_owned();
            format!("{} on {}: the page says {}, the run {}", key.0, key.1, said(committed), said(found))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::findings;

    const PAGE: &str = "\
# Support matrix

Which of the laws hold on which backend, as the conformance suite last found. Generated: do not edit, but run

```sh
cargo xtask test --matrix
```

| backend | ran against |
|---|---|
| docker | a real daemon, version 20.10.24 |
| memory | itself, in process |

| law | docker | memory |
|---|---|---|
| R1 bracket | passed | passed |
| R10 dead link | skipped [^1] | **failed** |

[^1]: no half-open
";

    #[test]
    fn the_page_has_laws_as_rows_and_skips_as_footnotes() {
        assert_eq!(render(&findings()), PAGE);
    }

    #[test]
    fn the_laws_of_the_log_are_not_on_it() {
        let mut findings = findings();
        let of_the_log = Finding { suite: "wal".to_owned(), backend: "wal".to_owned(), ..findings[0].clone() };
        findings.push(of_the_log);
        assert_eq!(render(&findings), PAGE);
    }

    #[test]
    fn stores_have_tables_of_their_own_and_share_the_footnotes() {
        let mut findings = findings();
        let of_a_store = |law: &str, name: &str, outcome, reason: Option<&str>| Finding {
            suite: "store".to_owned(),
            backend: "memory".to_owned(),
            real: false,
            law: law.to_owned(),
            name: name.to_owned(),
            outcome,
            reason: reason.map(str::to_owned),
            version: None,
        };
        findings.push(of_a_store("S10", "bounded", Verdict::Passed, None));
        findings.push(of_a_store("S9", "durable", Verdict::Skipped, Some("it is gone")));
        let page = render(&findings);
        let stores = "\
| R10 dead link | skipped [^1] | **failed** |

## Stores

The laws S1 to S12, on whatever holds declared resources.

| store | ran against |
|---|---|
| memory | itself, in process |

| law | memory |
|---|---|
| S9 durable | skipped [^2] |
| S10 bounded | passed |

[^1]: no half-open

[^2]: it is gone
";
        assert!(page.ends_with(stores), "{page}");
        let found = results(&page);
        let said = |law: &str, backend: &str| found.get(&(law.to_owned(), backend.to_owned())).map(String::as_str);
        assert_eq!(said("S9 durable", "memory"), Some("skipped: it is gone"));
        assert_eq!(said("R10 dead link", "docker"), Some("skipped: no half-open"));
        assert_eq!(found.len(), 6);
    }

    #[test]
    fn the_order_of_the_findings_does_not_matter() {
        let mut findings = findings();
        findings.reverse();
        assert_eq!(render(&findings), PAGE);
    }

    #[test]
    fn a_backend_without_its_daemon_was_not_run() {
        let mut findings = findings();
        for finding in &mut findings {
            if finding.backend == "docker" {
                finding.real = false;
                finding.outcome = Verdict::Skipped;
                finding.version = None;
            }
        }
        let page = render(&findings);
        assert!(page.contains("| docker | nothing: it was not run |"), "{page}");
        assert!(page.contains("| R1 bracket | not run | passed |"), "{page}");
        assert!(!page.contains("[^"), "{page}");
    }

    #[test]
    fn times_and_versions_are_no_difference_but_results_and_reasons_are() {
        let committed = results(PAGE);
        let mut findings = findings();
        for finding in &mut findings {
            finding.version = finding.version.as_ref().map(|_| "29.0.0".to_owned());
        }
        assert_eq!(differences(&committed, &results(&render(&findings))), Vec::<String>::new());
        findings[0].reason = Some("another".to_owned());
        findings[1].outcome = Verdict::Failed;
        let differences = differences(&committed, &results(&render(&findings)));
        assert_eq!(
            differences,
            [
                "R1 bracket on docker: the page says passed, the run **failed**",
                "R10 dead link on docker: the page says skipped: no half-open, the run skipped: another",
            ]
        );
    }

    #[test]
    fn a_runtimes_partial_support_of_a_law_is_a_footnote_too() {
        let mut findings = findings();
        findings[1].reason = Some("without: health".to_owned());
        let page = render(&findings);
        assert!(page.contains("| R1 bracket | passed [^1] | passed |"), "{page}");
        assert!(page.contains("\n[^1]: without: health\n"), "{page}");
        let key = ("R1 bracket".to_owned(), "docker".to_owned());
        assert_eq!(results(&page).get(&key).map(String::as_str), Some("passed: without: health"));
    }

    #[test]
    fn one_failure_outweighs_every_pass() {
        let mut findings = findings();
        let mut again = findings[1].clone();
        again.outcome = Verdict::Failed;
        findings.insert(0, again);
        assert!(render(&findings).contains("| R1 bracket | **failed** | passed |"));
    }
}
