//! Links from one page of this checkout to another: their targets must exist.

use std::fs;
use std::path::Path;

use crate::failure::{Failure, Outcome};
use crate::workspace;

/// Checks every page, and returns the number of links that it followed.
pub(crate) fn check() -> Outcome<usize> {
    let root = workspace::root();
    let (mut followed, mut broken) = (0, Vec::new());
    for page in pages(&root)? {
        let text = fs::read_to_string(&page).map_err(|error| unreadable(&page, &error))?;
        for (line, target) in links(&text) {
            let folder = page.parent().unwrap_or(&root);
            let file = target.split('#').next().unwrap_or_default();
            followed += 1;
            if !folder.join(file).exists() {
                broken.push(format!("{}:{line}: nothing is at {target}", workspace::relative(&page)));
            }
        }
    }
    if broken.is_empty() { Ok(followed) } else { Err(Failure::failed(broken.join("; "))) }
}

fn unreadable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::failed(format_args!("{}: {error}", workspace::relative(path)))
}

/// Every `.md` file, except in build output and hidden folders.
fn pages(folder: &Path) -> Outcome<Vec<std::path::PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(|error| unreadable(folder, &error))? {
        let path = entry.map_err(|error| unreadable(folder, &error))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() && !path.is_symlink() && name != "target" && !name.starts_with('.') {
            found.extend(pages(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
    Ok(found)
}

/// The targets of `[text](target)` and `[text]: target` below this checkout, with their lines. Rust names are checked by
/// rustdoc, addresses are not checked, and code has no links.
fn links(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut in_code = false;
    for (number, line) in (1..).zip(text.lines()) {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        } else if !in_code {
            let inline = line.match_indices("](").filter_map(|(at, mark)| {
                let before = line.get(..at).unwrap_or_default();
                // Within backticks it is code.
                let is_link = before.matches('`').count() % 2 == 0;
                line.get(at + mark.len()..)?.split_once(')').map(|(target, _)| target).filter(|_| is_link)
            });
            let by_reference =
                line.starts_with('[').then(|| line.split_once("]: ")).flatten().map(|(_, target)| target);
            let ours = |target: &&str| !target.contains("://") && !target.contains("::") && !target.contains(' ');
            let named =
                |target: &&str| !target.starts_with(['#', '`']) && !target.ends_with("()") && !target.is_empty();
            let each = inline.chain(by_reference).map(str::trim).filter(ours).filter(named);
            found.extend(each.map(|target| (number, target)));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_to_pages_are_found_and_nothing_else_is_one() {
        let text = "See [a](docs/a.md) and [b](../b.md#part), not [c](https://x) or [d](#here).\n\
                    [e]: e/README.md\n\
                    [f]: runtide_core::Error\n\
                    `[g](g.md)`, and R9 [failed](without: history)\n\
                    ```\n[h](h.md)\n```\n\
                    [i](i.md)";
        assert_eq!(links(text), [(1, "docs/a.md"), (1, "../b.md#part"), (2, "e/README.md"), (8, "i.md")]);
    }

    #[test]
    fn the_links_of_this_checkout_hold() {
        match check() {
            Ok(followed) => assert!(followed > 20, "{followed}"),
            Err(broken) => panic!("{broken}"),
        }
    }
}
