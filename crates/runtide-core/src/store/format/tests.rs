//! Properties that hold for all formats, and the handling of hostile documents.

use proptest::prelude::*;

use super::{Value, read, write};
use crate::{
    error::ErrorKind,
    store::{Document, ResourceFormat, ResourceRef, YamlSchema},
};

/// The formats whose features this build has.
fn formats() -> Vec<ResourceFormat> {
    use ResourceFormat::{Cbor, Hcl, Json, Yaml};
    [Json, Yaml, Hcl, Cbor].into_iter().filter(|format| super::known(*format).is_ok()).collect()
}

/// Compares floats by their bits and maps by their order; one NaN equals another.
fn same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Null, Value::Null) => true,
        (Value::Bool(one), Value::Bool(other)) => one == other,
        (Value::Unsigned(one), Value::Unsigned(other)) => one == other,
        (Value::Negative(one), Value::Negative(other)) => one == other,
        (Value::Float(one), Value::Float(other)) => one.to_bits() == other.to_bits() || one.is_nan() && other.is_nan(),
        (Value::Text(one), Value::Text(other)) => one == other,
        (Value::Bytes(one), Value::Bytes(other)) => one == other,
        (Value::List(one), Value::List(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same(one, other))
        }
        (Value::Map(one), Value::Map(other)) => {
            one.len() == other.len()
                && one.iter().zip(other).all(|((key, one), (known, other))| key == known && same(one, other))
        }
        _ => false,
    }
}

/// Texts that a reader might take for another type or for syntax, and arbitrary texts.
fn texts() -> impl Strategy<Value = String> {
    const TRAPS: [&str; 60] = [
        "",
        " ",
        "no",
        "No",
        "y",
        "on",
        "null",
        "Null",
        "~",
        "true",
        "False",
        "1",
        "-1",
        "012",
        "0x10",
        "0o7",
        "1_000",
        "1e3",
        "1.0",
        ".5",
        ".inf",
        ".nan",
        "-.inf",
        "2001-01-01",
        "2001-12-14t21:59:43.10-05:00",
        "12:30:45",
        "10Mi",
        "<<",
        "=",
        " a",
        "a ",
        "a: b",
        "a:",
        "a #b",
        "#a",
        "- x",
        "-",
        "---",
        "...",
        "--- a",
        "? a",
        ": a",
        "|",
        ">",
        "%a",
        "@a",
        "`a",
        "&a",
        "*a",
        "!a",
        "[a",
        "{a}",
        "a,b",
        "'a'",
        "\"a\"",
        "${a}",
        "$${a}",
        "$$${a}",
        "%{a}",
        "\\",
    ];
    prop_oneof![
        3 => prop::sample::select(&TRAPS[..]).prop_map(str::to_owned),
        2 => "[a-z][a-z0-9-]{0,8}",
        2 => any::<String>(),
        1 => prop::collection::vec(any::<char>(), 0..6).prop_map(String::from_iter),
        1 => prop::collection::vec(prop::sample::select(&[
            "a", " ", "\n", "\n\n", "\t", "\r", "\0", "---", "...", "#", ": ", "- ", "\u{85}", "\u{2028}", "\u{feff}", "\u{7f}",
            "\u{1f600}", "\u{fffe}", "E", "EOT", "$", "%", "{", "\"", "'", "\\", "*/", "//",
        ][..]), 0..8).prop_map(|parts| parts.concat()),
        1 => ("[ -~]{0,4}", 0..3000_usize).prop_map(|(text, times)| text.repeat(times)),
    ]
}

fn floats() -> impl Strategy<Value = f64> {
    prop_oneof![
        any::<f64>(),
        any::<u64>().prop_map(f64::from_bits),
        prop::sample::select(
            &[0.0, -0.0, 1.0, -1.0, 1e16, 1e300, 5e-324, f64::MAX, f64::MIN, 18_446_744_073_709_551_616.0][..]
        )
    ]
}

fn scalars(portable: bool) -> BoxedStrategy<Value> {
    let common = prop_oneof![
        1 => Just(Value::Null),
        1 => any::<bool>().prop_map(Value::Bool),
        1 => any::<i64>().prop_map(Value::from),
        1 => prop::sample::select(&[0, 1, 0x7fff_ffff_ffff_ffff, 1 << 63, u64::MAX][..]).prop_map(Value::Unsigned),
        1 => prop::sample::select(&[-1, i64::MIN][..]).prop_map(Value::Negative),
        2 => floats().prop_filter("finite", |number| number.is_finite()).prop_map(Value::Float),
        6 => texts().prop_map(Value::Text),
    ];
    if portable {
        return common.boxed();
    }
    prop_oneof![
        12 => common,
        1 => prop::sample::select(&[f64::NAN, f64::INFINITY, f64::NEG_INFINITY][..]).prop_map(Value::Float),
        1 => prop::collection::vec(any::<u8>(), 0..9).prop_map(Value::Bytes),
    ]
    .boxed()
}

fn unique(entries: Vec<(String, Value)>) -> Value {
    let mut map: Vec<(String, Value)> = Vec::new();
    for (key, value) in entries {
        if map.iter().all(|(known, _)| *known != key) {
            map.push((key, value));
        }
    }
    Value::Map(map)
}

/// Values; with `portable`, only values that every format can carry.
pub(super) fn values(portable: bool) -> impl Strategy<Value = Value> {
    let inner = scalars(portable).prop_recursive(6, 40, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::List),
            prop::collection::vec((texts(), inner), 0..5).prop_map(unique),
        ]
    });
    let top = prop::collection::vec(("[a-z_][a-z0-9_-]{0,6}", inner.clone()), 0..5).prop_map(unique);
    if portable { top.boxed() } else { prop_oneof![top, inner].boxed() }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_portable_value_goes_through_every_pair_of_formats(value in values(true)) {
        for from in formats() {
            let written = Document::new(from, write(&value, from).unwrap());
            let back = read(&written);
            prop_assert!(back.is_ok(), "{} {:?}\n{}", from, back, String::from_utf8_lossy(&written.bytes));
            prop_assert!(same(&value, &back.unwrap()), "{}\n{}", from, String::from_utf8_lossy(&written.bytes));
            for to in formats() {
                let converted = written.convert(to).unwrap();
                prop_assert!(same(&value, &read(&converted).unwrap()), "{} to {}", from, to);
                prop_assert_eq!(converted.convert(from).unwrap(), written.clone(), "{} to {} and back", from, to);
            }
        }
    }

    #[test]
    fn any_value_goes_through_or_is_refused_with_both_names(value in values(false)) {
        for from in formats() {
            let Ok(bytes) = write(&value, from) else { continue };
            let written = Document::new(from, bytes);
            prop_assert!(same(&value, &read(&written).unwrap()), "{}", from);
            for to in formats() {
                match written.convert(to) {
                    Ok(converted) => prop_assert!(same(&value, &read(&converted).unwrap()), "{} to {}", from, to),
                    Err(error) => {
                        prop_assert_eq!(error.kind(), ErrorKind::Unsupported);
                        prop_assert!(error.message().starts_with(&format!("{to} cannot carry this {from}: ")), "{}", error);
                        prop_assert!(write(&value, to).is_err(), "writing it directly is refused, too");
                    }
                }
            }
        }
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        read_in_every_way(&bytes);
    }

    #[test]
    fn no_text_makes_it_panic(parts in prop::collection::vec(prop::sample::select(&[
        "a", "b", "1", ":", " ", "\n", "  ", "- ", "-", "[", "]", "{", "}", "\"", "'", ",", "=", "&a ", "*a", "!", "!!str ",
        "#", "|", ">", "?", "<<", "<<E\n", "E\n", "${", "%{", "$", "%{ if ", "%{ endif }", "for ", "in", "/*", "*/", "//", "(", ")",
        "---", "...", "%YAML 1.2\n", "%TAG ! a\n", "\\", "\\u", "0x", "1e", ".", "\r", "\t", "\0", "\u{feff}", "labels", "meta", "items",
        "apiVersion: v1\n", "kind: List\n", "!!binary ", "*a ",
    ][..]), 0..30)) {
        read_in_every_way(parts.concat().as_bytes());
    }

    #[cfg(feature = "yaml")]
    #[test]
    fn streams_are_cut_as_the_parser_cuts_them(parts in prop::collection::vec(prop::sample::select(&[
        "a: 1\n", "---\n", "--- b\n", "...\n", "# c\n", "\n", "--- |\n d\n", "--- #\n", "- e\n", "\r\n", "---\r",
    ][..]), 0..8)) {
        let text = parts.concat();
        let mut parsed = 0;

        let mut empty = true;
        for event in granit_parser::Parser::new_from_str(&text) {
            let Ok((event, span)) = event else { return Ok(()) };
            match event {
                granit_parser::Event::DocumentStart(..) => empty = true,
                granit_parser::Event::Scalar(..) if span.is_empty() => {}
                granit_parser::Event::DocumentEnd if !empty => parsed += 1,
                granit_parser::Event::Scalar(..) | granit_parser::Event::MappingStart(..) | granit_parser::Event::SequenceStart(..) => empty = false,
                _ => {}
            }
        }
        prop_assert_eq!(Document::yaml(text.clone()).split().unwrap().len(), parsed, "{:?}", text);
    }
}

/// Runs every operation on these bytes in every format. Any result will do, except a panic or another kind of error.
fn read_in_every_way(bytes: &[u8]) {
    for format in formats().into_iter().chain([ResourceFormat::Native]) {
        let document = Document::new(format, bytes.to_vec());
        let _ = document.labels();
        let _ = document.split();
        let _ = document.resources();
        let _ = document.convert_as(YamlSchema::Kubectl, ResourceFormat::Json);
        let _ = ResourceRef::from_document(&document);
        for to in formats() {
            if let Err(error) = document.convert(to) {
                assert!(matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported), "{error}");
                assert!(error.to_string().len() < 1000, "{error}");
            }
        }
    }
}

fn kind_of(document: &Document) -> Option<ErrorKind> {
    let to = if document.format == ResourceFormat::Json { ResourceFormat::Native } else { ResourceFormat::Json };
    if to == ResourceFormat::Native {
        return read(document).err().map(|problem| problem.kind);
    }
    document.convert(to).err().map(|error| error.kind())
}

#[test]
fn every_prefix_of_a_document_is_read_or_refused() {
    for text in [
        "# a\n---\nmetadata: &m\n  labels: {a: \"b\\u0041\", 'c': d}\nlist:\n- [1, 2.5e3, ~]\n- |-\n  text\n- *m\n...\n",
        "{\"metadata\": {\"labels\": {\"a\\ud83d\\ude00\": \"b\"}, \"n\": [1, -2.5e-3, null, true]}}",
        "job \"a\" {\n  meta { a = \"b\" }\n  x = [1, -2.5, \"${a.b[0]}\", <<-E\n  t ${f(1)}\n  E\n  ]\n  /* c */ y = {\"a\" = !b ? 1 : (2)}\n}\n",
    ] {
        (0..=text.len()).for_each(|end| read_in_every_way(&text.as_bytes()[..end]));
    }
    let bytes = b"\xa2\x61a\x82\x1a\x00\x01\x00\x00\xfb\x3f\xf1\x99\x99\x99\x99\x99\x9a\x7f\x66labels\x61a\xff\x9f\xc1\x00\x5f\x41\x00\xff\xff";
    (0..=bytes.len()).for_each(|end| read_in_every_way(&bytes[..end]));
}

#[test]
fn a_key_twice_is_refused_and_named() {
    for format in formats() {
        let text: &[u8] = match format {
            ResourceFormat::Json => b"{\"x\": {\"key\": 1, \"\\u006bey\": 2}}",
            ResourceFormat::Yaml => b"x:\n  key: 1\n  'key': 2\n",
            ResourceFormat::Hcl => b"x = { key = 1, \"key\" = 2 }\n",
            _ => b"\xa1\x61x\xa2\x63key\x01\x63key\x02",
        };
        let problem = read(&Document::new(format, text)).unwrap_err();
        assert_eq!(problem.kind, ErrorKind::InvalidInput, "{format}");
        assert!(
            problem.message.contains("twice") && problem.message.contains("\"key\""),
            "{format}: {}",
            problem.message
        );
    }
}

#[test]
fn invalid_utf8_and_trailing_bytes_are_refused() {
    for format in formats() {
        let mut bytes = write(&Value::Map(vec![("a".to_owned(), Value::Text("x".to_owned()))]), format).unwrap();
        let x = bytes.iter().rposition(|byte| *byte == b'x').unwrap();
        bytes[x] = 0xff;
        assert_eq!(kind_of(&Document::new(format, bytes.clone())), Some(ErrorKind::InvalidInput), "{format}");
        bytes[x] = b'x';
        bytes.extend_from_slice(if format == ResourceFormat::Yaml { b"--- 1" } else { b"{}" });
        assert_eq!(kind_of(&Document::new(format, bytes)), Some(ErrorKind::InvalidInput), "{format}");
    }
}

#[test]
fn integers_beyond_64_bits_are_refused_and_floats_stay_floats() {
    for number in ["18446744073709551616", "-9223372036854775809", "1e400", "123456789012345678901234567890"] {
        for document in [
            Document::json(format!("[{number}]")),
            Document::yaml(format!("- {number}\n")),
            Document::hcl(format!("a = {number}\n")),
        ] {
            if formats().contains(&document.format) {
                assert_eq!(kind_of(&document), Some(ErrorKind::InvalidInput), "{number} in {}", document.format);
            }
        }
    }
    let one = read(&Document::json("[1.0, -0.0, 0.1, 18446744073709551615, -9223372036854775808, 8.41e21]")).unwrap();
    let written = write(&one, ResourceFormat::Json).unwrap();
    assert!(same(&one, &read(&Document::json(written)).unwrap()));
    let Value::List(items) = one else { panic!("a list") };
    assert!(matches!(
        items[..],
        [Value::Float(_), Value::Float(_), Value::Float(_), Value::Unsigned(_), Value::Negative(_), Value::Float(_)]
    ));
}

#[test]
fn a_document_that_is_too_long_is_refused_before_it_is_read() {
    for format in formats().into_iter().chain([ResourceFormat::Native]) {
        let document = Document::new(format, vec![b' '; Document::MAX_BYTES + 1]);
        assert_eq!(document.split().unwrap_err().kind(), ErrorKind::InvalidInput);
        if format != ResourceFormat::Native {
            assert_eq!(kind_of(&document), Some(ErrorKind::InvalidInput), "{format}");
            assert_eq!(document.labels().unwrap_err().kind(), ErrorKind::InvalidInput);
            assert_eq!(ResourceRef::from_document(&document).unwrap_err().kind(), ErrorKind::InvalidInput);
        }
    }
}

#[test]
fn a_long_text_is_written_and_a_value_that_indentation_makes_too_long_is_not() {
    let long = Value::Map(vec![("a".to_owned(), Value::Text("x".repeat(Document::MAX_BYTES - 100)))]);
    for format in formats() {
        let document = Document::new(format, write(&long, format).unwrap());
        assert!(same(&long, &read(&document).unwrap()), "{format}");
    }
    let mut deep = Value::List((0..100_000).map(|_| Value::Null).collect());
    for _ in 0..90 {
        deep = Value::List(vec![deep]);
    }
    for format in formats().into_iter().filter(|format| *format != ResourceFormat::Cbor) {
        let problem = write(&deep, format).unwrap_err();
        assert_eq!(problem.kind, ErrorKind::Unsupported, "{format}");
    }
}

/// Documents nested `times` deep, one for each way in which the format can nest.
fn nested(format: ResourceFormat, times: usize) -> Vec<Vec<u8>> {
    let around = |begin: &str, inner: &str, end: &str| {
        [begin.repeat(times), inner.to_owned(), end.repeat(times)].concat().into_bytes()
    };
    match format {
        ResourceFormat::Json => vec![around("[", "", "]"), around("{\"a\":", "1", "}"), around("[", "", "")],
        ResourceFormat::Yaml => {
            let block = (0..times.min(3000)).fold(String::new(), |text, level| text + &" ".repeat(level) + "a:\n");
            vec![
                around("[", "", "]"),
                around("{a: ", "1", "}"),
                around("[", "", ""),
                around("- ", "1", ""),
                around("? ", "1", ""),
                around("[? ", "1", "]"),
                block.into_bytes(),
            ]
        }
        ResourceFormat::Hcl => [
            around("[", "1", "]"),
            around("{a=", "1", "}"),
            around("(", "1", ")"),
            around("\"${", "1", "}\""),
            around("\"%{ if a }", "1", "%{ endif }\""),
            [b"\"".to_vec(), around("%{ if a }", "1", "%{ endif }"), b"\"".to_vec()].concat(),
            [b"\"".to_vec(), around("%{for a in b}", "1", "%{endfor}"), b"\"".to_vec()].concat(),
            around("[for a in ", "1", ": a]"),
            around("[ /* */ for a in ", "1", ": a]"),
            around("{for a in ", "1", ": a => 1}"),
            around("{for a in b : a => ", "1", "}"),
            around("f(", "1", ")"),
            around("f([for a in ", "1", ": a])"),
            around("x[", "1", "]"),
            around("1 ? 1 : ", "1", ""),
            around("1 ? ", "1", " : 1"),
            around("!", "a", ""),
            around("- ", "a", ""),
            around("1 + ", "1", ""),
            around("1 + (", "1", ")"),
            around("(!", "1", ")"),
            around("a.", "a", ""),
            around("<<E\n${", "1", "}\nE\n"),
        ]
        .into_iter()
        .map(|value| [b"a = ".to_vec(), value, b"\n".to_vec()].concat())
        .chain([around("a {\n", "", "}\n"), around("a {", "", "}"), [around("a ", "", ""), b"{}".to_vec()].concat()])
        .collect(),
        _ => vec![
            [vec![0x81; times], vec![0]].concat(),
            [vec![0x9f; times], vec![0xff; times]].concat(),
            [b"\xa1\x61a".repeat(times), vec![0]].concat(),
            [vec![0xc1; times], vec![0]].concat(),
            [vec![0x5f; times], vec![0xff; times]].concat(),
            [vec![0x7f; times], vec![0xff; times]].concat(),
        ],
    }
}

#[test]
fn depth_is_bounded_for_the_stack_of_a_worker_thread() {
    let worker = std::thread::Builder::new().stack_size(1536 << 10).spawn(|| {
        for format in formats() {
            for times in [31, 33, 63, 100, 101, 10_000, 400_000] {
                for bytes in nested(format, times).into_iter().filter(|bytes| bytes.len() <= Document::MAX_BYTES) {
                    let document = Document::new(format, bytes);
                    let _ = read(&document);
                    let _ = ResourceRef::from_document(&document);
                }
            }
        }
    });
    worker.unwrap().join().unwrap();
}

#[test]
fn the_deepest_allowed_nesting_is_read_and_one_level_more_is_not() {
    for format in formats().into_iter().filter(|format| *format != ResourceFormat::Hcl) {
        let deepest = nested(format, Document::MAX_DEPTH).swap_remove(0);
        assert_eq!(kind_of(&Document::new(format, deepest)), None, "{format}");
        let deeper = nested(format, Document::MAX_DEPTH + 1).swap_remove(0);
        assert_eq!(kind_of(&Document::new(format, deeper)), Some(ErrorKind::InvalidInput), "{format}");
    }
}

#[test]
fn too_many_values_are_refused() {
    let most = Document::MAX_BYTES - 16;
    for format in formats() {
        let bodies: Vec<Vec<u8>> = match format {
            ResourceFormat::Json => vec![[b"[".to_vec(), b"1,".repeat(most / 2), b"1]".to_vec()].concat()],
            ResourceFormat::Yaml => vec![
                [b"[".to_vec(), b"1,".repeat(most / 2), b"1]".to_vec()].concat(),
                b"- 1\n".repeat(most / 4),
                b"&a ".repeat(most / 3),
                b"---\n".repeat(most / 4),
                b"#\n".repeat(most / 2),
            ],
            ResourceFormat::Hcl => vec![
                [b"a = [".to_vec(), b"1,".repeat(most / 2), b"1]\n".to_vec()].concat(),
                b"a {}\n".repeat(most / 5),
                [b"a".to_vec(), b".b".repeat(most / 2)].concat(),
                (0..200_000).fold(b"a = {\n".to_vec(), |mut text, key| {
                    text.extend_from_slice(format!("k{key} = 1\n").as_bytes());
                    text
                }),
                (0..200_000).fold(b"a \"x\" {\n b = 1\n c {\n d = {\n".to_vec(), |mut text, key| {
                    text.extend_from_slice(format!("k{key} = 1\n").as_bytes());
                    text
                }),
            ],
            _ => vec![
                [vec![0x9f], vec![0; most], vec![0xff]].concat(),
                vec![0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
                vec![0x7b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
            ],
        };
        for bytes in bodies {
            assert_eq!(kind_of(&Document::new(format, bytes)), Some(ErrorKind::InvalidInput), "{format}");
        }
    }
}

#[test]
fn the_longest_text_is_read_in_every_spelling() {
    let most = Document::MAX_BYTES - 16;
    let spelled = |begin: &str, part: &str, end: &str| format!("{begin}{}{end}", part.repeat(most / part.len()));
    for document in [
        Document::json(spelled("[\"", "\\u00e4", "\"]")),
        Document::yaml(spelled("a: ", "x\n  ", "x")),
        Document::yaml(spelled("a: '", "x''\n\n ", "'")),
        Document::yaml(spelled("a: \"", "\\\n  ", "\"")),
        Document::yaml(spelled("a: >-\n", "  x\n\n", "")),
        Document::yaml(spelled("a: |+\n", "  \n", "")),
        Document::yaml(spelled("a: b #", "#", "")),
        Document::yaml(spelled("a:", " ", "b")),
        Document::yaml(spelled("a:", "\n", " b")),
        Document::hcl(spelled("a = \"", "$", "\"\n")),
        Document::hcl(spelled("a = \"", "%%{", "\"\n")),
        Document::hcl(spelled("a = <<-E\n", "  x\n", "  E\n")),
        Document::hcl(spelled("a = 1 /*", "* /", "*/\n")),
        Document::hcl(spelled("a =", " ", "1\n")),
    ] {
        if formats().contains(&document.format) {
            let begin = String::from_utf8_lossy(&document.bytes[..20]);
            assert!(read(&document).is_ok(), "{} {begin:?}: {:?}", document.format, read(&document).err());
        }
    }
}

#[cfg(feature = "yaml")]
#[test]
fn a_yaml_bomb_does_not_go_off() {
    let mut laughs = String::from("a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n");
    for level in 1..30 {
        let aliases = vec![format!("*a{}", level - 1); 9].join(", ");
        laughs = format!("{laughs}a{level}: &a{level} [{aliases}]\n");
    }
    let long = format!("a: &a {}\nb: [{}]\n", "x".repeat(100_000), "*a, ".repeat(1000));
    let within = format!("{}1{}", "&x [".repeat(90), ", 1]".repeat(90));
    let copies = format!("{}{}{}", "&x [".repeat(90), "1, ".repeat(100_000), "]".repeat(90));
    for (bomb, kind) in [
        (laughs, Some(ErrorKind::InvalidInput)),
        (long, Some(ErrorKind::InvalidInput)),
        ("&a [*a]".to_owned(), Some(ErrorKind::InvalidInput)),
        ("[*a]".to_owned(), Some(ErrorKind::InvalidInput)),
        (within.replace("&x", "&a"), None),
        (copies, Some(ErrorKind::InvalidInput)),
    ] {
        assert_eq!(kind_of(&Document::yaml(bomb)), kind);
    }
}

#[cfg(feature = "yaml")]
#[test]
fn yaml_is_resolved_by_the_core_schema() {
    let yaml = "a: no\nb: 012\nc: ~\nd: !!str 1\ne: &x [1, 2]\nf: *x\n\"<<\": 1\ng: !!float 1\nh: 'no'\nj: !!str\nk: ! 1\nl:\n? i\n: |\n  a\n   b\n\n  c\n";
    let json = Document::yaml(yaml).convert(ResourceFormat::Json).unwrap();
    let json: serde_json::Value = serde_json::from_slice(&json.bytes).unwrap();
    let expected = serde_json::json!({
        "a": "no", "b": 12, "c": null, "d": "1", "e": [1, 2], "f": [1, 2], "<<": 1, "g": 1.0, "h": "no", "j": "", "k": "1", "l": null, "i": "a\n b\n\nc\n",
    });
    assert_eq!(json, expected);
    for unsupported in
        ["a: !mine 1", "a: !!binary aGk=", "1: a", "[a]: b", "~: a", "a: &x {}\nb:\n  <<: *x\n", "!!set {a}"]
    {
        assert_eq!(kind_of(&Document::yaml(unsupported)), Some(ErrorKind::Unsupported), "{unsupported}");
    }
    for invalid in [
        "",
        "# only\n",
        "a\n---\nb\n",
        "a: !!int x",
        "a: [",
        "a: b: c",
        "a: b\0c",
        "a: \"\\ud800\"",
        "%YAML 3.0\n--- a",
    ] {
        assert_eq!(kind_of(&Document::yaml(invalid)), Some(ErrorKind::InvalidInput), "{invalid}");
    }
}

#[cfg(feature = "yaml")]
#[test]
fn yaml_is_written_in_block_style() {
    let json = r##"{"apiVersion": "v1", "data": {"run.sh": "#!/bin/sh\necho hi\n", "on": "yes", "port": "80"},
        "list": [{"a": 1, "b": [[1], []]}, "10Mi", "http://x/y?z"], "none": {}, "f": [1e16, -2.5e-7, 1.0]}"##;
    let yaml = Document::json(json).convert(ResourceFormat::Yaml).unwrap();
    let expected = "apiVersion: v1\ndata:\n  run.sh: |\n    #!/bin/sh\n    echo hi\n  \"on\": \"yes\"\n  port: \"80\"\nlist:\n- a: 1\n  b:\n  - - 1\n  - []\n- 10Mi\n- http://x/y?z\nnone: {}\nf:\n- 1.0e+16\n- -2.5e-7\n- 1.0\n";
    assert_eq!(std::str::from_utf8(&yaml.bytes).unwrap(), expected);
}

#[cfg(feature = "hcl")]
#[test]
fn blocks_of_hcl_are_maps_under_type_and_labels() {
    let hcl = "job \"web\" {\n  count = 2\n  group \"a\" {}\n  group \"b\" { x = -1.5 }\n  port {}\n  port { y = null }\n  text = <<-E\n    one\n      two\n    E\n}\n";
    let json = Document::hcl(hcl).convert(ResourceFormat::Json).unwrap();
    let json: serde_json::Value = serde_json::from_slice(&json.bytes).unwrap();
    let expected = serde_json::json!({"job": {"web": {
        "count": 2, "group": {"a": {}, "b": {"x": -1.5}}, "port": [{}, {"y": null}], "text": "one\n  two\n",
    }}});
    assert_eq!(json, expected);
    for unsupported in [
        "a = b",
        "a = \"${b}\"",
        "a = f(1)",
        "a = 1 + 1",
        "a = [for b in c : b]",
        "a = { (b) = 1 }",
        "a = <<E\n${b}\nE\n",
    ] {
        let document = Document::hcl(unsupported);
        let error = document.convert(ResourceFormat::Json).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{unsupported}");
        assert!(error.message().contains("hcl") && error.message().contains("json"), "{error}");
    }
    for invalid in ["a = 1\na {}", "a {}\na \"b\" {}", "a = 1\na = 2", "a = ", "a {", "}", "a = \"\\ud800\""] {
        assert_eq!(kind_of(&Document::hcl(invalid)), Some(ErrorKind::InvalidInput), "{invalid}");
    }
}

#[cfg(feature = "cbor")]
#[test]
fn cbor_values_that_a_document_cannot_have_are_refused() {
    for (bytes, kind) in [
        (&b"\xa1\x01\x02"[..], ErrorKind::Unsupported),
        (b"\xc0\x61a", ErrorKind::Unsupported),
        (b"\xc2\x41\x05", ErrorKind::InvalidInput),
        (b"\xc2\x49\x01\0\0\0\0\0\0\0\0", ErrorKind::InvalidInput),
        (b"\xc1\xc2\x41\0", ErrorKind::Unsupported),
        (b"\x3b\xff\xff\xff\xff\xff\xff\xff\xff", ErrorKind::InvalidInput),
        (b"\x43abc", ErrorKind::Unsupported),
        (b"\xf9\x7e\x00", ErrorKind::Unsupported),
        (b"\xff", ErrorKind::InvalidInput),
        (b"", ErrorKind::InvalidInput),
    ] {
        let found = kind_of(&Document::cbor(bytes));
        // A bignum below 2^64 may be read as an integer.
        assert!(found == Some(kind) || bytes == b"\xc2\x41\x05" && found.is_none(), "{bytes:x?} {found:?}");
    }
}

#[test]
fn a_format_that_is_off_names_its_feature() {
    for format in [ResourceFormat::Yaml, ResourceFormat::Hcl, ResourceFormat::Cbor] {
        if formats().contains(&format) {
            continue;
        }
        let document = Document::new(format, "a: labels");
        for error in [
            document.convert(ResourceFormat::Json).unwrap_err(),
            Document::json("{}").convert(format).unwrap_err(),
            document.labels().unwrap_err(),
            ResourceRef::from_document(&document).unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::Unsupported);
            assert!(error.fact("feature") == Some(format.as_str()), "{error}");
        }
    }
}
