//! The laws by name.

use std::str::FromStr;

use crate::{Harness, LawResult, laws};

/// An enum of laws: each with its number, its name and its text.
macro_rules! named_laws {
    ($(#[$doc:meta])* $laws:ident { $($law:ident $name:literal $text:literal;)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        #[non_exhaustive]
        pub enum $laws { $( #[doc = concat!("**", $name, "**: ", $text)] $law, )* }

        impl $laws {
            /// Every law, in order.
            pub const ALL: &'static [Self] = &[$( Self::$law, )*];

            /// As the specification numbers it: `R1`, `W1`.
            pub fn id(self) -> &'static str {
                match self { $( Self::$law => stringify!($law), )* }
            }

            /// In a word or two.
            pub fn name(self) -> &'static str {
                match self { $( Self::$law => $name, )* }
            }

            /// What must hold.
            pub fn text(self) -> &'static str {
                match self { $( Self::$law => $text, )* }
            }
        }

        impl std::fmt::Display for $laws {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "{} {}", self.id(), self.name())
            }
        }
    };
}

pub(crate) use named_laws;

macro_rules! laws {
    ($($law:ident $name:literal $check:path, $text:literal;)*) => {
        named_laws! {
            /// What Runtide promises. Each is a test, guards against a trap, and has a mutant that breaks it.
            Law { $($law $name $text;)* }
        }

        impl Law {
            /// Tests it on a fresh harness.
            pub async fn check(self, h: &dyn Harness) -> LawResult {
                match self { $( Self::$law => Box::pin($check(h)).await, )* }
            }
        }
    };
}

laws! {
    R1 "bracket" laws::bracket::r1_bracket, "no instance event precedes the first `ResyncBegin` (unless `from` was resumed without loss); inside a bracket there is only `Present`, and `Present` is nowhere else";
    R2 "contiguous" laws::bracket::r2_contiguous, "within one epoch `seq` rises by exactly one (filtered: it rises); the epoch changes only at `ResyncBegin` and `ResyncEnd`; `Bookmark` repeats the last cursor";
    R3 "reliable" laws::bracket::r3_reliable, "instances that come, change and go while the watch opens are all accounted for: folding the stream equals the truth";
    R4 "ordered" laws::edges::r4_ordered, "per instance, events come in the order of the facts";
    R5 "unique" laws::edges::r5_unique, "no `Some(RuntimeEvent::key())` twice";
    R6 "converges" laws::truth::r6_converges, "at rest, fold(stream) = `list_instances()` = what the harness did, in every field that both know";
    R7 "resumable" laws::resume::r7_resumable, "a watch from a stored cursor, after the runtime or we restarted, loses nothing; short gaps replay real edges where the runtime keeps history";
    R8 "honest gap" laws::gap::r8_honest_gap, "history lost means a bracket, never silence";
    R9 "absent means removed" laws::gap::r9_absent_means_removed, "what vanished during a gap gives one net removal from `InstanceTable` and `transitions()`";
    R10 "dead link" laws::link::r10_dead_link, "a half-open connection is found within `max_silence` plus a margin, also when the daemon answers on other connections";
    R11 "calm retry" laws::retry::r11_calm_retry, "under refusal, denial and instant clean end of stream: at most 10 dials a minute once backed off, still trying after a day; only a stream that stayed healthy resets the backoff; flapping is one degraded state";
    R12 "slow consumer" laws::slow::r12_slow_consumer, "a stalled subscriber never delays another, never loses silently, never grows without bound";
    R13 "one bad item" laws::looks::r13_one_bad_item, "one undecodable item neither blinds the watch nor removes anything";
    R14 "partial list" laws::looks::r14_partial_list, "an incomplete or failed listing removes nothing; unknown is not absent";
    R15 "drop closes" laws::resources::r15_drop_closes, "dropping streams and the backend returns connections, tasks and file descriptors to the baseline";
    R16 "capabilities tell the truth" laws::contract::r16_capabilities, "once connected, `Capabilities` knows every verb and agrees with the managers; an absent verb is `Unsupported` with feature, backend and reason; nothing returns Ok without an effect";
    R17 "connect" laws::retry::r17_connect, "optional, idempotent; a daemon that is late at boot is picked up when it comes";
    R18 "errors" laws::contract::r18_errors, "classified by `ErrorKind`, with operation and context; no credential in Display or Debug";
    R19 "incarnation" laws::truth::r19_incarnation, "a restart changes it; the same name recreated is another id";
    R20 "unknown events" laws::looks::r20_unknown_events, "an event that we do not know is a hint, never an error";
    R21 "edges" laws::edges::r21_edges, "n instances that live 10-50 ms each, back to back: n `Started`, n `Stopped` with the exit status, where the runtime reports edges; a signal that does not end the instance is not `Stopped`";
    R22 "every visible change" laws::truth::r22_every_visible_change, "pause, unpause, health, rename, port, address, label and resource changes give `Updated`";
    M1 "effect" laws::managers::effect::m1_effect, "Ok means the effect is there: the harness looks from outside";
    M2 "idempotent" laws::managers::effect::m2_idempotent, "stop of the stopped, remove of the removed: success, and says whether it did anything";
    M3 "exit" laws::managers::exit::m3_exit, "`wait` gives the true exit code, signal and OOM; never an invented one";
    M4 "output" laws::managers::output::m4_output, "logs and exec keep stdout and stderr apart, lose no byte, follow to the end; 100 MB arrives with the right digest in bounded memory";
    M5 "cancel" laws::managers::cancel::m5_cancel, "dropping any future or stream leaves the backend usable and leaks nothing";
    M6 "deadlines" laws::managers::deadline::m6_deadlines, "every call ends within its configured limit when the daemon stalls, with `Timeout`";
    M7 "undone" laws::managers::undone::m7_undone, "a composed operation that fails, is dropped, or whose process is killed between any two steps leaves nothing behind after `recover()`; undoing is idempotent and may run again when recovery itself dies";
    M8 "names" laws::managers::names::m8_names, "hostile names, labels and env are refused with `InvalidInput` or carried through intact; nothing is ever pasted into a shell or a path";
}

impl FromStr for Law {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.iter().find(|law| law.id().eq_ignore_ascii_case(text.trim()));
        known.copied().ok_or_else(|| format!("'{text}' is not a law: expected R1 to R22 or M1 to M8"))
    }
}
