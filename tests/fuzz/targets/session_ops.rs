//! Any order of messages in one conversation: the state machine keeps its promises and never comes back from its end.
#![no_main]

use ismrmrd::wire::{Event, Message, Session, State};
use ismrmrd::{Acquisition, Waveform};

fn message(op: u8) -> Option<Message> {
    Some(match op % 12 {
        0 => Message::ConfigFile("a".into()),
        1 => Message::ConfigText("b".into()),
        2 => Message::Header("<c/>".into()),
        3 => Message::Acquisition(Acquisition::default()),
        4 => Message::Waveform(Waveform::default()),
        5 => Message::Text("d".into()),
        6 => Message::Query { correlation_id: 1, text: "e".into() },
        7 => Message::Response { correlation_id: 1, text: "f".into() },
        8 => Message::Error("g".into()),
        9 => Message::DependencyQuery("h".into()),
        10 => Message::Close,
        _ => return None,
    })
}

libfuzzer_sys::fuzz_target!(|ops: &[u8]| {
    let mut session = Session::new();
    let (mut configs, mut headers, mut readouts) = (0_u64, 0_u64, 0_u64);
    for op in ops {
        let before = session.state();
        let taken = match message(*op) {
            Some(message) => session.take(message),
            None => session.peer_closed(),
        };
        match &taken {
            Ok(Event::Config(_)) => configs += 1,
            Ok(Event::Header(_)) => headers += 1,
            Ok(Event::Acquisition(_)) => {
                readouts += 1;
                assert_eq!(headers, 1, "a readout before the header");
            }
            Ok(_) => {}
            Err(e) => {
                assert!(!e.to_string().is_empty());
                assert_eq!(session.state(), State::Closed, "a fault that does not end it");
            }
        }
        assert!(configs <= 1 && headers <= 1);
        assert_eq!(session.readouts(), readouts);
        if before == State::Closed {
            assert_eq!(session.state(), State::Closed, "back from the end");
            assert!(matches!(taken, Err(_) | Ok(Event::Closed)));
        }
    }
});
