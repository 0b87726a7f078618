//! `Status`, the list's one line for people: the only source of exit code and health in a list (trap D19).

use runtide_core::Health;
use runtide_engine::number;

/// The facts in the line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Status {
    pub(super) exit_code: Option<i32>,
    pub(super) health: Option<Health>,
}

/// Parses `Exited (3) 4 seconds ago`, `Restarting (1) 3 seconds ago`, `Up 4 seconds (healthy)`, `Up 2 hours (Paused)`.
pub(super) fn parse(line: &str) -> Status {
    let in_brackets = line.split_once('(').and_then(|(_, rest)| rest.split_once(')')).map(|(inside, _)| inside);
    let mut status = Status::default();
    let Some(inside) = in_brackets else { return status };
    if line.starts_with("Exited (") || line.starts_with("Restarting (") {
        status.exit_code = number(inside, "Status");
    } else if line.starts_with("Up ") {
        status.health = health(inside.strip_prefix("health: ").unwrap_or(inside));
    }
    status
}

/// The verdict; `None` for `none` and for an unknown word.
pub(super) fn health(word: &str) -> Option<Health> {
    match word {
        "starting" => Some(Health::Starting),
        "healthy" => Some(Health::Healthy),
        "unhealthy" => Some(Health::Unhealthy),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_code_and_health_are_read_from_the_line() {
        let exit = |code| Status { exit_code: Some(code), health: None };
        let healthy = |health| Status { exit_code: None, health: Some(health) };
        let table = [
            ("Exited (3) 4 seconds ago", exit(3)),
            ("Exited (0) About an hour ago", exit(0)),
            ("Exited (-1) 2 weeks ago", exit(-1)),
            ("Exited (4294967295) 1 second ago", Status::default()),
            ("Restarting (137) Less than a second ago", exit(137)),
            ("Up 4 seconds (healthy)", healthy(Health::Healthy)),
            ("Up About a minute (health: starting)", healthy(Health::Starting)),
            ("Up 2 hours (unhealthy)", healthy(Health::Unhealthy)),
            ("Up 2 hours (Paused)", Status::default()),
            ("Up 2 hours", Status::default()),
            ("Created", Status::default()),
            ("Dead", Status::default()),
            ("Removal In Progress", Status::default()),
            ("", Status::default()),
            ("Exited (", Status::default()),
            ("Exited ()", Status::default()),
            ("Upset (healthy)", Status::default()),
        ];
        for (line, expected) in table {
            assert_eq!(parse(line), expected, "{line}");
        }
    }
}
