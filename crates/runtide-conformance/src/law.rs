//! The laws of runtimes by name.

#[doc(hidden)]
#[macro_export]
macro_rules! __runtime_laws {
    ($then:ident $with:tt) => {
        $crate::$then! { $with
            R1 r1_bracket in laws::bracket, "bracket"
                "no instance event precedes the first `ResyncBegin` (unless `from` was resumed without loss); inside a resync there is only `Present`, and `Present` is nowhere else; `CaughtUp` ends what a `BackendReconnected` that resumed began";
            R2 r2_contiguous in laws::bracket, "contiguous"
                "within one epoch `seq` rises by exactly one (filtered: it rises); the epoch changes only at `ResyncBegin` and `ResyncEnd`; `Bookmark` repeats the last cursor";
            R3 r3_reliable in laws::bracket, "reliable"
                "instances that come, change and go while the watch opens are all accounted for: folding the stream gives the runtime's own state";
            R4 r4_ordered in laws::edges, "ordered"
                "per instance, events come in the order of the facts";
            R5 r5_unique in laws::edges, "unique"
                "no `Some(RuntimeEvent::key())` twice";
            R6 r6_converges in laws::truth, "converges"
                "at rest, fold(stream) = `list_instances()` = the harness's own record, in every field that both know";
            R7 r7_resumable in laws::resume, "resumable"
                "a watch from a stored cursor, after the runtime or we restarted, loses nothing; short gaps replay real edges where the runtime keeps history, and `CaughtUp` comes after the last of them";
            R8 r8_honest_gap in laws::gap, "honest gap"
                "history lost means a resync, never silence";
            R9 r9_absent_means_removed in laws::gap, "absent means removed"
                "an instance that vanished during a gap gives one net removal from `InstanceTable` and `transitions()`";
            R10 r10_dead_link in laws::link, "dead link"
                "a half-open connection is found within `max_silence` plus a margin, also when the daemon answers on other connections";
            R11 r11_calm_retry in laws::retry, "calm retry"
                "under refusal, denial and instant clean end of stream: of the dials that reach a daemon at most 10 a minute once backed off, still trying after a day; only a link that stayed healthy is forgiven its falls; flapping is one degraded state";
            R12 r12_slow_consumer in laws::slow, "slow consumer"
                "a stalled subscriber never delays another, never loses silently, never grows without bound";
            R13 r13_one_bad_item in laws::looks, "one bad item"
                "one undecodable item neither blinds the watch nor removes anything";
            R14 r14_partial_list in laws::looks, "partial list"
                "an incomplete or failed listing removes nothing; unknown is not absent; a resync says that its listing was partial, and another one when a listing is complete";
            R15 r15_drop_closes in laws::resources, "drop closes"
                "dropping streams and the backend returns connections, tasks and file descriptors to the baseline";
            R16 r16_capabilities in laws::contract, "capabilities tell the truth"
                "once connected, `Capabilities` knows every verb and agrees with the managers; an absent verb is `Unsupported` with feature, backend and reason; nothing returns Ok without an effect";
            R17 r17_connect in laws::retry, "connect"
                "optional, idempotent; a daemon that is late at boot is picked up when it comes";
            R18 r18_errors in laws::contract, "errors"
                "classified by `ErrorKind`, with operation and context; no credential in Display or Debug";
            R19 r19_incarnation in laws::truth, "incarnation"
                "a restart changes it; the same name recreated is another id";
            R20 r20_unknown_events in laws::looks, "unknown events"
                "an event that we do not know is a hint, never an error";
            R21 r21_edges in laws::edges, "edges"
                "n instances that live 10-50 ms each, back to back: n `Started`, n `Stopped` with the exit status, where the runtime reports edges; a signal that does not end the instance is not `Stopped`";
            R22 r22_every_visible_change in laws::truth, "every visible change"
                "pause, unpause, health, rename, port, address, label and resource changes give `Updated`";
            R23 r23_prompt_return in laws::retry, "prompt return"
                "a watch is back within 0.3 s of the runtime's own return, after any number of outages in which nothing listened";
            R24 r24_another_boot in laws::boot, "another boot"
                "a token names the boot that gave it: no token, key or incarnation of one boot comes again in another, and an old token offered to a runtime that has begun again is answered with a resync";
            M1 m1_effect in laws::managers::effect, "effect"
                "Ok means the effect is there: the harness checks it from outside";
            M2 m2_idempotent in laws::managers::effect, "idempotent"
                "stop of the stopped, remove of the removed: success, and says whether it did anything";
            M3 m3_exit in laws::managers::exit, "exit"
                "`wait` gives the true exit code, signal and OOM; never an invented one";
            M4 m4_output in laws::managers::output, "output"
                "logs and exec keep stdout and stderr apart, lose no byte, follow to the end; 100 MB arrives with the right digest in bounded memory";
            M5 m5_cancel in laws::managers::cancel, "cancel"
                "dropping any future or stream leaves the backend usable and leaks nothing";
            M6 m6_deadlines in laws::managers::deadline, "deadlines"
                "every call ends within its configured limit when the daemon stalls, with `Timeout`";
            M7 m7_undone in laws::managers::undone, "undone"
                "a composed operation that fails, is dropped, or whose process is killed between any two steps leaves nothing behind after `recover()`; undoing is idempotent and may run again when recovery itself dies";
            M8 m8_names in laws::managers::names, "names"
                "hostile names, labels and env are refused with `InvalidInput` or carried through intact; nothing is ever pasted into a shell or a path";
        }
    };
}

__runtime_laws! { __law_enum [
    /// The promises of Runtide. Each is a test, guards against a trap, and has a mutant that breaks it.
    Law
] }
