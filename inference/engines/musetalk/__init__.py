"""MuseTalk: a person's video and speech in, the person saying it out. See docs/musetalk.md."""
