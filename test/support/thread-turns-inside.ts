// Lowers its own priority and asks for short turns, in a process of its own: prints what the system says of it then.

import { readFileSync } from 'node:fs'
import { lowerPriority, takeShortTurns } from '../../resolver/thread-turns.ts'

/** The 19th number of what the system tells of a thread; the second is a name in brackets. */
const nice = () => Number(readFileSync('/proc/thread-self/stat', 'utf8').split(') ')[1]!.split(' ')[16])
const before = nice()
const isLowered = lowerPriority(before + 1)
const isTaken = takeShortTurns(100)
process.stdout.write(JSON.stringify({ isLowered, isTaken, steps: nice() - before }))
