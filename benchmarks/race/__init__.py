"""fastgru against its peers: each contender in a process of its own, their blocks in turns."""
