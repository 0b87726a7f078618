//! Budget of the core's dependencies: few crates, and no client of any daemon.

use std::collections::BTreeSet;

/// Distinct crates in the tree of `runtide-core`, itself among them: as every backend has it.
pub(crate) const MOST: usize = 50;

/// The same with all of its features: the formats of documents.
pub(crate) const MOST_WITH_FEATURES: usize = 90;

/// Clients of daemons, and the libraries that clients are built on.
const FORBIDDEN: [&str; 19] = [
    "bollard",
    "bollard-stubs",
    "etcd-client",
    "h2",
    "hyper",
    "hyper-util",
    "k8s-openapi",
    "kube",
    "kube-client",
    "kube-core",
    "kube-runtime",
    "native-tls",
    "openssl",
    "openssl-sys",
    "reqwest",
    "rustls",
    "tonic",
    "tungstenite",
    "zbus",
];

/// Judges the output of `cargo tree -p runtide-core -e normal --prefix none`: the number of crates, or the findings.
pub(crate) fn judge(tree: &str, most: usize) -> Result<usize, String> {
    let crates: BTreeSet<(&str, &str)> = tree.lines().filter_map(name_and_version).collect();
    let forbidden: Vec<_> = crates.iter().map(|(name, _)| *name).filter(|name| FORBIDDEN.contains(name)).collect();
    if crates.is_empty() {
        Err("the tree is empty".to_owned())
    } else if !forbidden.is_empty() {
        Err(format!("no client of any daemon belongs there: {}", forbidden.join(", ")))
    } else if crates.len() > most {
        Err(format!("{} crates, and {most} is the most", crates.len()))
    } else {
        Ok(crates.len())
    }
}

/// `serde_derive v1.0.229 (proc-macro) (*)`
fn name_and_version(line: &str) -> Option<(&str, &str)> {
    let mut words = line.split_whitespace();
    let (name, version) = (words.next()?, words.next()?);
    version.starts_with('v').then_some((name, version))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_crates_count_once() {
        let tree = "runtide-core v0.1.0 (/somewhere)\nserde v1.0.229\nserde_derive v1.0.229 (proc-macro)\nserde v1.0.229 (*)\n";
        assert_eq!(judge(tree, MOST), Ok(3));
    }

    #[test]
    fn a_client_is_found_and_a_crate_with_a_similar_name_is_not() {
        assert_eq!(judge("hyperloglog v1.0.0\nh2o v1.0.0\n", MOST), Ok(2));
        let error = judge("runtide-core v0.1.0\nhyper v1.0.0\nzbus v5.0.0\n", MOST_WITH_FEATURES).unwrap_err();
        assert!(error.ends_with("hyper, zbus"), "{error}");
    }

    #[test]
    fn one_crate_too_many_is_too_many() {
        use std::fmt::Write as _;
        let mut tree = String::new();
        for number in 0..MOST {
            let _ = writeln!(tree, "crate-{number} v1.0.0");
        }
        assert_eq!(judge(&tree, MOST), Ok(MOST));
        tree.push_str("crate-0 v2.0.0\n");
        assert!(judge(&tree, MOST).unwrap_err().starts_with("51 crates"), "two versions are two crates");
        assert_eq!(judge(&tree, MOST_WITH_FEATURES), Ok(51), "each tree has its own budget");
        assert!(judge("", MOST).is_err(), "a tree that could not be read proves nothing");
    }
}
