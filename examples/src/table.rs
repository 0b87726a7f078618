//! Instances as a table, or as JSON.

use std::{
    io::{self, Write},
    sync::Arc,
    time::SystemTime,
};

use anstyle::Style;
use runtide_core::Instance;

use crate::{
    Stop,
    show::{self, cell, clean, shorten},
    width::{columns, fit},
};

/// Prints instances: a table, or an array in JSON with one instance per line.
///
/// # Errors
/// `Unread` for a closed pipe; `Refused` where the output cannot be written.
pub fn instances(instances: &[Arc<Instance>], json: bool) -> Result<(), Stop> {
    if json {
        let mut out = io::stdout().lock();
        out.write_all(array(instances)?.as_bytes())?;
        out.flush()?;
    } else {
        let mut out = anstream::stdout().lock();
        out.write_all(table(instances, SystemTime::now(), columns()).as_bytes())?;
        out.flush()?;
    }
    Ok(())
}

fn array(instances: &[Arc<Instance>]) -> Result<String, Stop> {
    let lines: Result<Vec<String>, _> = instances.iter().map(serde_json::to_string).collect();
    let lines = lines.map_err(|error| Stop::refused(format_args!("an instance cannot be written as JSON: {error}")))?;
    Ok(if lines.is_empty() { "[]\n".to_owned() } else { format!("[\n{}\n]\n", lines.join(",\n")) })
}

const HEADER: [&str; 8] = ["NAME", "STATE", "EXIT", "IMAGE", "PORTS", "ADDRESSES", "GROUP", "AGE"];
const MOST: usize = 40;

fn table(instances: &[Arc<Instance>], now: SystemTime, columns: Option<usize>) -> String {
    let rows: Vec<[String; 8]> = instances.iter().map(|instance| row(instance, now)).collect();
    let mut widths = HEADER.map(str::len);
    for row in &rows {
        for (width, text) in widths.iter_mut().zip(row) {
            *width = (*width).max(text.chars().count());
        }
    }
    if let Some(columns) = columns {
        fit(&mut widths, 2, columns);
    }
    let mut out = String::new();
    let bold = Style::new().bold();
    line(&mut out, HEADER.iter().zip(widths).map(|(text, width)| cell(&shorten(text, width), width, bold)));
    for (row, instance) in rows.iter().zip(instances) {
        let cells = row.iter().zip(widths).zip(HEADER).map(|((text, width), column)| {
            let style = if column == "STATE" { show::state_style(instance.state) } else { Style::new() };
            cell(&shorten(text, width), width, style)
        });
        line(&mut out, cells);
    }
    out
}

fn line(out: &mut String, cells: impl Iterator<Item = String>) {
    out.push_str(&cells.collect::<Vec<_>>().join("  "));
    out.truncate(out.trim_end_matches(' ').len());
    out.push('\n');
}

fn row(instance: &Instance, now: SystemTime) -> [String; 8] {
    let exit = show::exit(instance);
    [
        clean(&instance.name),
        show::state(instance),
        exit.strip_prefix("exit ").unwrap_or(&exit).to_owned(),
        show::image(instance.image.as_ref()),
        show::ports(instance.ports.as_deref()),
        show::addresses(instance.addresses.as_deref()),
        show::group(instance.group.as_deref()),
        show::age(instance.created_at, now),
    ]
    .map(|text| shorten(&text, MOST))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use runtide_core::{InstanceKind, InstanceState};

    use super::*;

    fn instance(name: &str, state: InstanceState) -> Arc<Instance> {
        Arc::new(Instance::new("docker:local", name, name, InstanceKind::Container, state))
    }

    #[test]
    fn columns_are_aligned_and_unknown_is_a_dash() {
        let now = SystemTime::now();
        let mut web = Instance::clone(&instance("a-long-name", InstanceState::Running));
        web.image = Some("nginx:1".into());
        (web.ports, web.created_at) = (Some(vec![]), Some(now - Duration::from_secs(3)));
        let text = table(&[Arc::new(web), instance("b", InstanceState::Stopped)], now, None);
        let plain = anstream::adapter::strip_str(&text).to_string();
        assert_eq!(
            plain.lines().collect::<Vec<_>>(),
            [
                "NAME         STATE    EXIT  IMAGE    PORTS  ADDRESSES  GROUP  AGE",
                "a-long-name  running        nginx:1         -          -      3s",
                "b            stopped  -     -        -      -          -      -",
            ]
        );
    }

    #[test]
    fn a_table_fits_into_the_columns() {
        let mut web = Instance::clone(&instance("a-name-that-is-rather-long-for-a-column", InstanceState::Running));
        web.image = Some("registry.example/shop/web:2.0.1-alpine".into());
        let text = anstream::adapter::strip_str(&table(&[Arc::new(web)], SystemTime::now(), Some(80))).to_string();
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(text.contains("a-name-that") && text.contains("registry"), "{text}");
    }

    #[test]
    fn json_is_an_array_with_one_instance_per_line() {
        let there = [instance("a", InstanceState::Running), instance("b", InstanceState::Stopped)];
        let text = array(&there).unwrap();
        assert_eq!(text.lines().count(), 4);
        let read: Vec<Arc<Instance>> = serde_json::from_str(&text).unwrap();
        assert_eq!(read, there);
        assert_eq!(array(&[]).unwrap(), "[]\n");
    }
}
