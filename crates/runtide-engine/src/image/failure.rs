//! The kind of a failure that the engine reports in words alone: inside a successful answer, or as a 500.

use runtide_core::{Error, ErrorKind, backend::CallSite};

/// Words of the daemon, and of the registries behind it, with the kind that they mean. The first that is found decides.
const WORDS: &[(&str, ErrorKind)] = &[
    // A missing file of a step, whose name may be any of the words below.
    ("copier: stat", ErrorKind::InvalidInput),
    ("no basic auth credentials", ErrorKind::Unauthenticated),
    ("authentication required", ErrorKind::Unauthenticated),
    ("incorrect username or password", ErrorKind::Unauthenticated),
    ("unauthorized", ErrorKind::Unauthenticated),
    ("toomanyrequests", ErrorKind::RateLimited),
    ("Too Many Requests", ErrorKind::RateLimited),
    ("repository does not exist", ErrorKind::NotFound),
    ("manifest unknown", ErrorKind::NotFound),
    ("name unknown", ErrorKind::NotFound),
    ("no matching manifest", ErrorKind::NotFound),
    ("does not provide the specified platform", ErrorKind::NotFound),
    ("denied:", ErrorKind::PermissionDenied),
    ("access denied", ErrorKind::PermissionDenied),
    ("requires BuildKit", ErrorKind::Unsupported),
    ("connection refused", ErrorKind::Unavailable),
    ("no such host", ErrorKind::Unavailable),
    ("i/o timeout", ErrorKind::Unavailable),
    ("TLS handshake timeout", ErrorKind::Unavailable),
    ("server misbehaving", ErrorKind::Unavailable),
    ("network is unreachable", ErrorKind::Unavailable),
    ("no route to host", ErrorKind::Unavailable),
    ("connection reset", ErrorKind::Unavailable),
    ("Client.Timeout exceeded", ErrorKind::Unavailable),
    ("context canceled", ErrorKind::Cancelled),
    ("please force removal", ErrorKind::Conflict),
    ("image not known", ErrorKind::NotFound),
    ("payload does not match any of the supported image formats", ErrorKind::InvalidInput),
    ("archive/tar:", ErrorKind::InvalidInput),
    ("Error processing tar file", ErrorKind::InvalidInput),
    ("invalid tar header", ErrorKind::InvalidInput),
    ("unexpected EOF", ErrorKind::InvalidInput),
    ("invalid character", ErrorKind::InvalidInput),
    ("invalid archive", ErrorKind::InvalidInput),
    ("invalid manifest", ErrorKind::InvalidInput),
    ("invalid reference format", ErrorKind::InvalidInput),
    ("ockerfile parse error", ErrorKind::InvalidInput),
    ("failed to parse Dockerfile", ErrorKind::InvalidInput),
    ("Cannot locate specified Dockerfile", ErrorKind::InvalidInput),
    ("failed to reach build target", ErrorKind::InvalidInput),
    ("COPY failed", ErrorKind::InvalidInput),
    ("ADD failed", ErrorKind::InvalidInput),
    ("no FROM statement found", ErrorKind::InvalidInput),
    ("Unknown instruction", ErrorKind::InvalidInput),
    ("was not found in the provided Dockerfile", ErrorKind::InvalidInput),
    ("no items matching glob", ErrorKind::InvalidInput),
    ("short-name resolution enforced", ErrorKind::InvalidInput),
    ("did not resolve to an alias", ErrorKind::InvalidInput),
    ("not found", ErrorKind::NotFound),
];

/// Folder of the daemon's where an archive is unpacked: what is missing there was missing in the archive.
const UNPACKED: &str = "/docker-import-";

fn kind_of(message: &str) -> ErrorKind {
    if message.contains(UNPACKED) && message.contains("no such file or directory") {
        return ErrorKind::InvalidInput;
    }
    WORDS.iter().find(|(words, _)| message.contains(words)).map_or(ErrorKind::Unexpected, |(_, kind)| *kind)
}

/// The error of a message inside a successful answer.
pub fn of_message(site: CallSite<'_>, message: &str) -> Error {
    let text = message.trim();
    // A step of a build prints words of its own, which are not the daemon's.
    match exit_of_step(text) {
        Some(code) => site.error(ErrorKind::Unexpected, text).with_context("exit_code", code),
        None => site.error(kind_of(reason_in(text)), text),
    }
}

/// The exit code with which a step of a build ended, as Docker or as Podman says it.
fn exit_of_step(text: &str) -> Option<&str> {
    let code = text.rsplit_once("returned a non-zero code: ").map(|(_, code)| code);
    let podmans =
        || text.rsplit_once(": exit status ").map(|(_, code)| code).filter(|_| text.contains("at STEP \"RUN "));
    code.or_else(podmans).map(|code| code.trim_end_matches(|last: char| !last.is_ascii_digit()))
}

/// The reason behind the step that Podman quotes.
fn reason_in(text: &str) -> &str {
    let step = text.split_once("at STEP \"").map(|(_, step)| step);
    step.and_then(|step| step.split_once("\": ")).map_or(text, |(_, reason)| reason)
}

/// An error of an answer, by its words where its status says nothing.
pub fn of_answer(site: CallSite<'_>, error: Error) -> Error {
    let status = error.fact("status").map(str::to_owned);
    match (error.kind(), kind_of(error.message()), status) {
        (_, ErrorKind::Unexpected, _) | (_, _, None) => error,
        // Registries hide what they do not show behind a status that the daemon passes on in its own way.
        (ErrorKind::Unexpected | ErrorKind::NotFound | ErrorKind::PermissionDenied, kind, Some(status)) => {
            site.error(kind, error.message()).with_context("status", status)
        }
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use runtide_core::BackendId;

    use super::*;

    #[test]
    fn words_have_their_kind() {
        let id = BackendId::from("engine:test");
        let site = CallSite::new("engine.pull_image", &id);
        for (message, kind) in [
            ("Get \"http://127.0.0.1:5000/v2/\": no basic auth credentials", ErrorKind::Unauthenticated),
            ("unauthorized: authentication required", ErrorKind::Unauthenticated),
            ("manifest for 127.0.0.1:5000/a:b not found: manifest unknown: manifest unknown", ErrorKind::NotFound),
            (
                "pull access denied for x, repository does not exist or may require 'docker login': denied: requested access to the resource is denied",
                ErrorKind::NotFound,
            ),
            ("toomanyrequests: You have reached your pull rate limit.", ErrorKind::RateLimited),
            (
                "Get \"http://127.0.0.1:1/v2/\": dial tcp 127.0.0.1:1: connect: connection refused",
                ErrorKind::Unavailable,
            ),
            ("the --mount option requires BuildKit.", ErrorKind::Unsupported),
            (
                "open /var/lib/docker/tmp/docker-import-1/repositories: no such file or directory",
                ErrorKind::InvalidInput,
            ),
            ("the disk is full of beans", ErrorKind::Unexpected),
        ] {
            assert_eq!(of_message(site, message).kind(), kind, "{message}");
        }
        for (message, kind) in [
            (
                "initializing source docker://r:1/a:1: reading manifest 1 in r:1/a: unauthorized: authentication required",
                ErrorKind::Unauthenticated,
            ),
            (
                "initializing source docker://r:1/a:1: reading manifest 1 in r:1/a: manifest unknown: manifest unknown",
                ErrorKind::NotFound,
            ),
            (
                "building at STEP \"COPY unauthorized /\": checking on sources under \"/b\": copier: stat: \"/unauthorized\": no such file or directory",
                ErrorKind::InvalidInput,
            ),
            ("The target \"x\" was not found in the provided Dockerfile", ErrorKind::InvalidInput),
            (
                "unable to load image: payload does not match any of the supported image formats:\n * oci: x: not a directory",
                ErrorKind::InvalidInput,
            ),
        ] {
            assert_eq!(of_message(site, message).kind(), kind, "{message}");
        }
        let podmans = of_message(
            site,
            "building at STEP \"RUN echo unauthorized; exit 3\": while running runtime: exit status 3\n",
        );
        assert_eq!((podmans.kind(), podmans.fact("exit_code")), (ErrorKind::Unexpected, Some("3")));
        let step = of_message(site, "The command '/bin/sh -c echo unauthorized; exit 3' returned a non-zero code: 3");
        assert_eq!((step.kind(), step.fact("exit_code")), (ErrorKind::Unexpected, Some("3")));
    }
}
