//! Generated unit files, read by a real systemd and by this crate: whatever systemd loads is read, with the same values,
//! and what is written back means the same to systemd.
//!
//! `RUNTIDE_UNIT_FILES=5000` generates that many units (300 by default), `RUNTIDE_UNIT_FILES_SEED=7` another set.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::PathBuf,
};

use runtide_conformance::{report, testbed::Turn};
use zbus::{OwnedObjectPath, OwnedVariant};

use super::UnitFile;
use crate::{client::Client, config::Config, files};

/// Numbers that depend on the seed alone (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(limit).unwrap()).unwrap()
    }

    fn one_in(&mut self, many: usize) -> bool {
        self.below(many) == 0
    }

    fn of<'a, T: ?Sized>(&mut self, choices: &[&'a T]) -> &'a T {
        choices[self.below(choices.len())]
    }
}

const BOM: &[u8] = b"\xef\xbb\xbf";

const ENDS: [&[u8]; 7] = [b"\n", b"\r\n", b"\r", b"\n\r", b"\0", b"\r\n\0", b"\n\0"];

/// Sections that systemd reads, ignores, and knows not.
const SECTIONS: [&[u8]; 9] =
    [b"[Unit]", b"[Unit]", b"[Service]", b"[X-Labels]", b"[X-koi]", b" \t[Unit]\t ", b"[Unit ]", b"[]", b"[Un]it]"];

/// Headers for which systemd refuses the file.
const BAD_SECTIONS: [&[u8]; 6] = [b"[Unit", b"[", b"[Unit] # main", b"[Un'it]", b"[Un\\it]", "[Unit]\u{a0}".as_bytes()];

/// Lines of which systemd warns, or that it ignores.
const IGNORED: [&[u8]; 12] = [
    b"what is this",
    b"=x",
    b" = x",
    b".include /etc/fstab",
    b".include /etc/a=b",
    b"# caf\xe9",
    b" \t; \xff\xfe",
    b"#Description=comment \\",
    b"",
    b" \t ",
    "\u{a0}Description=blank".as_bytes(),
    "\u{b}Description=blank".as_bytes(),
];

/// Lines for which systemd refuses the file: they are no UTF-8 to it.
const BAD_LINES: [&[u8]; 5] = [
    b"Description=caf\xe9",
    b"junk \xff",
    b"Description=\xed\xa0\x80",
    b"Description=\xef\xbf\xbe",
    b"Description=\xc0\xaf",
];

/// Parts of a value that systemd takes as it is.
const PARTS: [&str; 24] = [
    "a", "bc", "x=y", " ", "  ", "\t", "\"", "'", "\\\\", "\\n", "\\x41", "\\ ", "#", ";", "[", "]", "%%", "\u{a0}",
    "\u{2003}", "\u{85}", "\u{feff}", "é", "\u{1}", "\u{7f}",
];

/// Assignments whose meaning is systemd's matter.
const ASSIGNMENTS: [&str; 18] = [
    "After=a.service b.service",
    "After=",
    "Wants=\"c.service\" d.service",
    "Documentation=man:x(1) https://example.org/%n",
    "Documentation=",
    "ConditionPathExists=|!/x/%p",
    "ConditionPathExists=",
    "Description=%n is %%",
    "Environment=A=1 \"B=2 3\" 'C=\\x41\\t' D=%i",
    "Environment=\"E=\\\"quoted\\\"\" F='a b' G=a\\ b",
    "Environment=",
    "ExecStartPre=/bin/echo \"a b\" 'c' $X ${Y} %n ; /bin/echo two",
    "ExecStartPre=-/bin/true",
    "ExecStartPre=",
    "PassEnvironment=A B",
    "WorkingDirectory=-/tmp",
    "SyslogIdentifier=id-%p",
    "TimeoutStartSec=1min 5s",
];

fn value(random: &mut Random) -> String {
    let parts = random.below(7);
    (0..parts).map(|_| random.of(&PARTS)).collect()
}

/// Appends a line, continued somewhere perhaps.
fn line(random: &mut Random, out: &mut Vec<u8>, text: &[u8], end: &[u8]) {
    // Within a character the two halves are joined again only by chance, so that it is no UTF-8.
    let cut = random.below(text.len() + 1);
    if random.one_in(4) && std::str::from_utf8(&text[..cut]).is_ok() {
        out.extend_from_slice(&text[..cut]);
        out.push(b'\\');
        out.extend_from_slice(end);
        match random.below(4) {
            0 => out.extend([b" # caf\xe9 \\", end].concat()),
            1 => out.extend_from_slice(b" \t"),
            _ => {}
        }
        out.extend_from_slice(&text[cut..]);
    } else {
        out.extend_from_slice(text);
    }
    out.extend_from_slice(end);
}

/// A unit file, or a drop-in.
fn file(random: &mut Random, is_drop_in: bool) -> Vec<u8> {
    let mut out = Vec::new();
    let mut end = random.of(&ENDS);
    if random.one_in(4) {
        out.extend_from_slice(BOM);
    }
    for _ in 0..random.below(16) {
        if random.one_in(20) {
            end = random.of(&ENDS);
        }
        if random.one_in(12) {
            out.extend_from_slice(BOM);
        }
        match random.below(8) {
            0 | 1 => {
                let section = random.of(&SECTIONS);
                line(random, &mut out, section, end);
            }
            2 => {
                let ignored = random.of(&IGNORED);
                line(random, &mut out, ignored, end);
            }
            3 | 4 => {
                let assignment = random.of(&ASSIGNMENTS).as_bytes();
                line(random, &mut out, assignment, end);
            }
            _ => {
                let (key, blank) =
                    (random.of(&["Description", "Description", "team", "a.b"]), random.of(&["", " ", "\t "]));
                let text = format!("{key}{blank}={blank}{}{blank}", value(random));
                line(random, &mut out, text.as_bytes(), end);
            }
        }
    }
    if random.one_in(8) {
        let bad = if random.one_in(2) { random.of(&BAD_SECTIONS) } else { random.of(&BAD_LINES) };
        line(random, &mut out, bad, end);
    }
    if !is_drop_in {
        // Another empty line, in case that the last one is continued.
        out.extend([end, end, b"[Service]", end, b"ExecStart=/bin/true"].concat());
    }
    if random.one_in(2) {
        out.extend_from_slice(end);
    }
    out
}

/// A unit: its files by their paths below the root.
struct Unit {
    name: String,
    files: BTreeMap<String, Vec<u8>>,
}

impl Unit {
    fn generate(random: &mut Random, prefix: &str, number: usize) -> Self {
        let name = format!("{prefix}-{number}.service");
        let mut files = BTreeMap::from([(format!("/run/systemd/system/{name}"), file(random, false))]);
        for folder in ["/etc", "/run"] {
            for drop_in in ["10-a", "20-b"] {
                if random.one_in(3) {
                    files.insert(format!("{folder}/systemd/system/{name}.d/{drop_in}.conf"), file(random, true));
                }
            }
        }
        Self { name, files }
    }

    fn shown(&self) -> String {
        let shown = self.files.iter().map(|(path, text)| format!("\n{path}: {}", text.escape_ascii()));
        shown.collect::<Vec<_>>().concat()
    }
}

type Properties = HashMap<String, OwnedVariant>;

fn text(properties: &Properties, name: &str) -> String {
    properties.get(name).and_then(|value| <&str>::try_from(&**value).ok()).unwrap_or_default().to_owned()
}

/// A property as a text; the names of other units are a set.
fn shown(name: &str, value: &OwnedVariant) -> String {
    const LISTS: [&str; 3] = ["Environment", "Documentation", "PassEnvironment"];
    match value.try_clone().map(Vec::<String>::try_from) {
        Ok(Ok(mut names)) if !LISTS.contains(&name) => {
            names.sort();
            format!("{names:?}")
        }
        _ => format!("{value:?}"),
    }
}

struct Fixture {
    _turn: Turn,
    client: Client,
    root: PathBuf,
    units: Vec<Unit>,
}

impl Fixture {
    /// Writes the files of all units, has the manager read them, and returns its properties of each unit.
    async fn read(&self) -> Vec<Properties> {
        for (path, text) in self.units.iter().flat_map(|unit| &unit.files) {
            let path = self.root.join(path.trim_start_matches('/'));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        self.client.manager("test", "Reload", &()).await.unwrap();
        let mut all = Vec::new();
        for unit in &self.units {
            let answer = self.client.manager("test", "LoadUnit", &(unit.name.as_str(),)).await.unwrap();
            let path: OwnedObjectPath = self.client.read("test", &answer).unwrap();
            let answer = self.client.get_all("test", &path, "").await.unwrap();
            all.push(answer.body().deserialize().unwrap());
        }
        all
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        for path in self.units.iter().flat_map(|unit| unit.files.keys()) {
            let path = self.root.join(path.trim_start_matches('/'));
            let _ = fs::remove_file(&path);
            if path.extension().is_some_and(|ending| ending == "conf") {
                let _ = fs::remove_dir(path.parent().unwrap_or(&path));
            }
        }
    }
}

/// The description that systemd shows for these files: the last one, of which an empty one is the unit's name. `None`: a
/// specifier in one decides, or whether it is valid.
fn description(files: &[UnitFile], unit: &str) -> Option<String> {
    let all: Vec<&str> = files
        .iter()
        .flat_map(|file| file.entries("Unit").filter(|(key, _)| *key == "Description").map(|(_, value)| value))
        .collect();
    if all.iter().any(|value| value.replace("%%", "").contains('%')) {
        return None;
    }
    Some(all.last().filter(|last| !last.is_empty()).map_or_else(|| unit.to_owned(), |last| last.replace("%%", "%")))
}

#[tokio::test]
async fn whatever_systemd_loads_is_read_and_written_back_with_the_same_meaning() {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let (Some(address), Some(root)) = (variable("RUNTIDE_TEST_SYSTEMD2"), variable("RUNTIDE_TEST_SYSTEMD2_ROOT"))
    else {
        report::skip("unit files", "systemd", "RUNTIDE_TEST_SYSTEMD2 is not set: cargo xtask testbed up systemd2");
        return;
    };
    let number = |name| variable(name).map(|text| text.parse::<u64>().unwrap());
    let seed = number("RUNTIDE_UNIT_FILES_SEED").unwrap_or(1);
    let count = usize::try_from(number("RUNTIDE_UNIT_FILES").unwrap_or(300)).unwrap();
    let mut random = Random(seed);
    let prefix = format!("uf{:x}", std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos() & 0xff_ffff_ffff);
    let root = PathBuf::from(root);
    let mut fixture = Fixture {
        _turn: Turn::on("systemd2").await.unwrap(),
        client: Client::new(Config::system().with_address(address).with_root(root.clone())).unwrap(),
        units: (0..count).map(|number| Unit::generate(&mut random, &prefix, number)).collect(),
        root,
    };

    let before = fixture.read().await;
    let (mut loaded, mut described) = (0, 0);
    for (unit, properties) in fixture.units.iter_mut().zip(&before) {
        let load = text(properties, "LoadState");
        let context = format!("seed {seed}, {load}, {:?}{}", properties.get("LoadError"), unit.shown());
        let main = format!("/run/systemd/system/{}", unit.name);
        let is_refused = UnitFile::parse(&unit.files[&main]).is_err();
        assert_eq!(is_refused, load == "error", "systemd and we do not agree on the file: {context}");
        if is_refused {
            continue;
        }
        loaded += 1;
        let drop_ins: Vec<String> =
            properties.get("DropInPaths").and_then(|value| value.try_clone().ok()?.try_into().ok()).unwrap();
        let used: Vec<&String> = [&main].into_iter().chain(&drop_ins).collect();
        let parsed: Vec<UnitFile> = used.iter().map(|path| UnitFile::parse_until_flaw(&unit.files[*path]).0).collect();
        if let Some(expected) = description(&parsed, &unit.name) {
            described += 1;
            assert_eq!(text(properties, "Description"), expected, "{context}");
        }
        assert!(files::labels(&fixture.root, &main, &drop_ins).is_some(), "its labels are unseen: {context}");
        for (path, parsed) in used.iter().zip(parsed) {
            let written = parsed.render().unwrap_or_else(|why| panic!("{why:?}: {context}"));
            assert_eq!(UnitFile::parse(written.as_bytes()).as_ref(), Ok(&parsed), "{context}");
            unit.files.insert((*path).clone(), written.into_bytes());
        }
    }
    assert!(loaded * 2 > count && described * 3 > count, "{loaded} loaded, {described} described");

    let after = fixture.read().await;
    for (unit, (before, after)) in fixture.units.iter().zip(before.iter().zip(&after)) {
        if text(before, "LoadState") == "error" {
            continue;
        }
        // Both are about the files, one of which was refused, and not about what was read of it.
        let is_meaning = |name: &str| !matches!(name, "NeedDaemonReload" | "UnitFileState");
        for (name, value) in before.iter().filter(|(name, _)| is_meaning(name)) {
            let (was, now) = (shown(name, value), shown(name, &after[name]));
            assert_eq!(was, now, "{name} has another meaning: seed {seed}{}", unit.shown());
        }
    }
    println!("{count} units, {loaded} loaded");
}
