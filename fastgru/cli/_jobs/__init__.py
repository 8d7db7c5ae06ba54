"""Jobs of many parts, which processes here or elsewhere compute: their files, and which parts are done."""
